//! Whatever happens, in any order.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    Kill(u32, u64),
    Records(Vec<u32>),
    DnsFails,
    Inbound(u32),
    /// An earlier run knew the peer that is there, or, with `false`, the one that was there before.
    Known(u32, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12_u32).prop_map(Step::Start),
        ((0..12_u32), (0..7000_u64)).prop_map(|(n, ms)| Step::Kill(n, ms)),
        prop::collection::vec(0..12_u32, 0..12).prop_map(Step::Records),
        Just(Step::DnsFails),
        (0..12_u32).prop_map(Step::Inbound),
        ((0..12_u32), any::<bool>()).prop_map(|(n, right)| Step::Known(n, right)),
        (0..40_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_happened_the_world_is_put_right_when_it_calms_down(
        seed: u64,
        steps in prop::collection::vec(step(), 0..60),
        last in prop::collection::btree_set(0..12_u32, 1..12),
    ) {
        let mut world = World::new(seed);
        let peer = name("peer");
        world.names.insert(peer.clone(), vec![]);
        world.watch(&peer);
        for step in steps {
            match step {
                Step::Start(n) if !world.replicas.contains_key(&at(n)) => { world.start_replica(n); }
                Step::Kill(n, after) => world.kill(n, MS(after)),
                Step::Records(of) => { world.names.insert(peer.clone(), records(of)); }
                Step::DnsFails => { world.names.remove(&peer); }
                Step::Inbound(n) => {
                    if let Some(peer) = world.replicas.get(&at(n)).copied() {
                        world.connect(at(n), peer);
                    }
                }
                Step::Known(n, right) => {
                    let there = world.replicas.get(&at(n)).copied().filter(|_| right);
                    let known = [(there.unwrap_or_else(PeerId::random), at(n))];
                    world.reconciler.try_known(known, world.now);
                }
                Step::Wait(ms) => world.run(MS(ms)),
                Step::Start(_) => {}
            }
        }
        world.names.insert(peer, records(last.clone()));
        for n in &last {
            if !world.replicas.contains_key(&at(*n)) {
                world.start_replica(*n);
            }
        }
        world.run(S(75));
        for n in &last {
            prop_assert!(world.is_connected(*n), "{n}: {:?}", world.states());
        }
        prop_assert_eq!(world.states().len(), last.len());
        let dials = world.dials.len();
        world.run(S(600));
        prop_assert_eq!(world.dials.len(), dials, "a calm world is left alone");
        prop_assert!(world.dialing_peak <= Policy::default().parallel);
    }
}
