//! Under libp2p's own swarm.

use super::Transport;
use crate::testing::swarm;

#[test]
fn two_swarms_ping_each_other_and_part_in_peace() {
    swarm::two_swarms_ping_each_other_and_part_in_peace::<Transport>();
}

#[test]
fn a_swarm_that_dials_the_wrong_peer_is_told_who_answered() {
    swarm::a_swarm_that_dials_the_wrong_peer_is_told_who_answered::<Transport>();
}
