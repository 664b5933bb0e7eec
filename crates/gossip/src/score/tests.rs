use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Fingerprinter;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn topic() -> Topic {
    Topic::from("t")
}

fn fingerprint(n: u64) -> Fingerprint {
    Fingerprinter::with_key([1, 2]).id(&n.to_le_bytes())
}

/// Nothing counts but what a test switches on.
fn silent() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: 0.0,
        ..TopicScoreParams::default()
    }
}

fn score(params: TopicScoreParams, change: impl FnOnce(&mut PeerScoreParams)) -> Score {
    params.validate().unwrap();
    let mut all =
        PeerScoreParams { topics: HashMap::from([(topic(), params)]), ..PeerScoreParams::default() };
    change(&mut all);
    all.validate().unwrap();
    Score::new(all, DeliveryLimits::default())
}

/// Peers that are connected.
fn peers<const N: usize>(score: &mut Score) -> [PeerId; N] {
    [(); N].map(|()| {
        let peer = PeerId::random();
        score.add_peer(peer);
        peer
    })
}

#[track_caller]
fn assert_score(score: &Score, peer: &PeerId, expected: f64) {
    let found = score.score(peer);
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

#[test]
fn p1_time_in_mesh_counts_up_to_a_cap() {
    let params = TopicScoreParams {
        time_in_mesh_weight: 0.5,
        time_in_mesh_quantum: SECOND,
        time_in_mesh_cap: 10.0,
        ..silent()
    };
    let mut score = score(params, |_| {});
    let [peer, other] = peers(&mut score);
    let now = Instant::now();
    score.graft(&peer, &topic(), now);
    assert_score(&score, &peer, 0.0);
    score.refresh(now + 4 * SECOND);
    assert_score(&score, &peer, 2.0);
    assert_score(&score, &other, 0.0);
    score.refresh(now + 40 * SECOND);
    assert_score(&score, &peer, 5.0);
    score.prune(&peer, &topic());
    assert_score(&score, &peer, 0.0);
}

#[test]
fn p2_first_deliveries_count_up_to_a_cap_and_decay() {
    let params = TopicScoreParams {
        first_message_deliveries_weight: 2.0,
        first_message_deliveries_cap: 5.0,
        first_message_deliveries_decay: 0.5,
        ..silent()
    };
    let mut score = score(params, |_| {});
    let [peer, late] = peers(&mut score);
    let now = Instant::now();
    for n in 0..8 {
        score.validate_message(fingerprint(n), now);
        score.duplicated_message(&late, &fingerprint(n), &topic(), now);
        score.deliver_message(&peer, fingerprint(n), &topic(), now);
        assert_score(&score, &peer, 2.0 * (n as f64 + 1.0).min(5.0));
    }
    assert_score(&score, &late, 0.0);
    score.refresh(now + SECOND);
    assert_score(&score, &peer, 5.0);
    for _ in 0..6 {
        score.refresh(now + SECOND);
    }
    assert_score(&score, &peer, 0.0);
}

fn p3() -> TopicScoreParams {
    TopicScoreParams {
        mesh_message_deliveries_weight: -1.0,
        mesh_message_deliveries_threshold: 10.0,
        mesh_message_deliveries_cap: 20.0,
        mesh_message_deliveries_decay: 0.9,
        mesh_message_deliveries_window: 10 * MILLI,
        mesh_message_deliveries_activation: SECOND,
        ..silent()
    }
}

#[test]
fn p3_too_few_deliveries_cost_once_the_time_of_activation_is_over() {
    let mut score = score(p3(), |_| {});
    let [peer, outside] = peers(&mut score);
    let now = Instant::now();
    score.graft(&peer, &topic(), now);
    score.refresh(now + SECOND);
    assert_score(&score, &peer, 0.0);
    score.refresh(now + 2 * SECOND);
    assert_score(&score, &peer, -100.0);
    for n in 0..4 {
        score.validate_message(fingerprint(n), now);
        score.deliver_message(&peer, fingerprint(n), &topic(), now);
    }
    assert_score(&score, &peer, -36.0);
    assert_score(&score, &outside, 0.0);
}

#[test]
fn p3_copies_count_before_the_verdict_and_within_the_window_after_it_once_each() {
    let mut score = score(p3(), |_| {});
    let [first, early, soon, late] = peers(&mut score);
    let now = Instant::now();
    for peer in [first, early, soon, late] {
        score.graft(&peer, &topic(), now);
    }
    let (message, counted) =
        (fingerprint(1), |score: &Score, peer: &PeerId| score.mesh_message_deliveries(peer, &topic()));
    score.validate_message(message, now);
    for _ in 0..3 {
        score.duplicated_message(&early, &message, &topic(), now + 5 * SECOND);
    }
    assert_eq!(counted(&score, &early), Some(0.0), "it may still turn out to be invalid");
    let accepted = now + 6 * SECOND;
    score.deliver_message(&first, message, &topic(), accepted);
    for peer in [first, early, soon, soon] {
        score.duplicated_message(&peer, &message, &topic(), accepted + 10 * MILLI);
    }
    score.duplicated_message(&late, &message, &topic(), accepted + 11 * MILLI);
    for (peer, count) in [(first, 1.0), (early, 1.0), (soon, 1.0), (late, 0.0)] {
        assert_eq!(counted(&score, &peer), Some(count));
    }
}

#[test]
fn p3b_a_deficit_sticks_to_who_leaves_the_mesh() {
    let params =
        TopicScoreParams { mesh_failure_penalty_weight: -1.0, mesh_failure_penalty_decay: 0.5, ..p3() };
    let mut score = score(params, |_| {});
    let [peer, gone] = peers(&mut score);
    let now = Instant::now();
    score.graft(&peer, &topic(), now);
    score.graft(&gone, &topic(), now);
    score.refresh(now + 2 * SECOND);
    score.prune(&peer, &topic());
    score.remove_peer(&gone, now + 2 * SECOND);
    assert_score(&score, &peer, -100.0);
    assert_score(&score, &gone, -100.0);
    score.refresh(now + 3 * SECOND);
    assert_score(&score, &peer, -50.0);
    assert_score(&score, &gone, -100.0);
}

#[test]
fn p4_invalid_messages_cost_everybody_who_brings_them() {
    let params = TopicScoreParams { invalid_message_deliveries_weight: -1.0, ..silent() };
    let mut score = score(params, |_| {});
    let [first, meanwhile, later, ignored] = peers(&mut score);
    let now = Instant::now();
    score.validate_message(fingerprint(1), now);
    score.duplicated_message(&meanwhile, &fingerprint(1), &topic(), now);
    score.reject_message(&first, fingerprint(1), &topic(), now);
    assert!(score.was_rejected(&fingerprint(1)));
    score.duplicated_message(&later, &fingerprint(1), &topic(), now + 100 * SECOND);
    for peer in [first, meanwhile, later] {
        assert_score(&score, &peer, -1.0);
    }
    score.duplicated_message(&later, &fingerprint(1), &topic(), now + 100 * SECOND);
    assert_score(&score, &later, -4.0);
    // The square of the counter.
    score.reject_invalid_message(&first, &topic());
    score.reject_invalid_message(&first, &topic());
    assert_score(&score, &first, -9.0);

    score.validate_message(fingerprint(2), now);
    score.duplicated_message(&ignored, &fingerprint(2), &topic(), now);
    score.ignore_message(&fingerprint(2));
    score.duplicated_message(&ignored, &fingerprint(2), &topic(), now);
    assert_score(&score, &ignored, 0.0);
}

#[test]
fn p5_what_the_application_says_counts() {
    let mut score = score(silent(), |params| params.app_specific_weight = 2.0);
    let [peer] = peers(&mut score);
    assert!(score.set_application_score(&peer, -3.0));
    assert!(!score.set_application_score(&peer, f64::NAN));
    assert!(!score.set_application_score(&PeerId::random(), 1.0));
    assert_score(&score, &peer, -6.0);
}

#[test]
fn p6_too_many_at_one_address_cost_each_of_them() {
    let ip: IpAddr = "10.1.2.3".parse().unwrap();
    let allowed: IpAddr = "10.1.2.4".parse().unwrap();
    let mut score = score(silent(), |params| {
        params.ip_colocation_factor_threshold = 2.0;
        params.ip_colocation_factor_whitelist = [allowed].into();
    });
    let all: [PeerId; 4] = peers(&mut score);
    for peer in &all {
        score.add_ip(peer, ip);
        score.add_ip(peer, ip);
        score.add_ip(peer, allowed);
    }
    assert_score(&score, &all[0], -20.0);
    score.remove_ip(&all[3], ip);
    assert_score(&score, &all[0], -5.0);
    assert_score(&score, &all[3], 0.0);
    score.remove_peer(&all[1], Instant::now());
    score.remove_peer(&all[0], Instant::now());
    assert!(score.addresses.values().all(|peers| !peers.is_empty()));
    assert_score(&score, &all[2], 0.0);
}

#[test]
fn p7_misbehaviour_costs_beyond_a_threshold_and_decays() {
    let mut score = score(silent(), |params| params.behaviour_penalty_threshold = 1.0);
    let [peer] = peers(&mut score);
    score.add_penalty(&peer, 1);
    assert_score(&score, &peer, 0.0);
    score.add_penalty(&peer, 3);
    assert_score(&score, &peer, -90.0);
    score.refresh(Instant::now());
    assert_score(&score, &peer, 0.0);
}

#[test]
fn who_reads_slowly_pays_for_it() {
    let mut score = score(silent(), |_| {});
    let [peer] = peers(&mut score);
    score.slow_peer(&peer, 10);
    assert_score(&score, &peer, -2.0);
}

#[test]
fn topics_together_bring_no_more_than_their_cap() {
    let params = TopicScoreParams { first_message_deliveries_weight: 100.0, ..silent() };
    let mut score = score(params, |params| params.topic_score_cap = 50.0);
    let [peer] = peers(&mut score);
    score.deliver_message(&peer, fingerprint(1), &topic(), Instant::now());
    assert_score(&score, &peer, 50.0);
}

#[test]
fn a_topic_that_is_not_scored_counts_nothing() {
    let mut score = score(silent(), |_| {});
    let [peer] = peers(&mut score);
    let other = Topic::from("other");
    let now = Instant::now();
    score.graft(&peer, &other, now);
    score.validate_message(fingerprint(1), now);
    score.deliver_message(&peer, fingerprint(1), &other, now);
    score.reject_message(&peer, fingerprint(2), &other, now);
    score.prune(&peer, &other);
    assert_score(&score, &peer, 0.0);
}

#[test]
fn a_bad_score_is_not_to_be_had_rid_of_by_coming_back_and_a_good_one_does_not_stay() {
    let params = TopicScoreParams { first_message_deliveries_weight: 1.0, ..silent() };
    let mut score = score(params, |params| params.retain_score = 100 * SECOND);
    let [bad, good, blank] = peers(&mut score);
    let now = Instant::now();
    score.add_penalty(&bad, 2);
    score.deliver_message(&good, fingerprint(1), &topic(), now);
    for peer in [bad, good, blank] {
        score.remove_peer(&peer, now);
    }
    assert_eq!(score.len(), 1, "only a bad score is kept");
    score.refresh(now + 99 * SECOND);
    assert_score(&score, &bad, -40.0);
    score.add_peer(bad);
    // It is here again: its score decays, and does not vanish when that of the time it was away would.
    score.refresh(now + 101 * SECOND);
    assert_score(&score, &bad, -1.6);
    score.remove_peer(&bad, now + 102 * SECOND);
    score.refresh(now + 203 * SECOND);
    assert!(score.is_empty());
    assert!(score.numbers.is_empty() && score.addresses.is_empty() && score.gone.is_empty());
}

#[test]
fn a_crowd_that_comes_misbehaves_and_goes_is_not_kept() {
    let mut score = score(silent(), |_| {});
    let now = Instant::now();
    for n in 0..3 * MOST_RETAINED {
        let [peer] = peers(&mut score);
        score.add_penalty(&peer, 1);
        score.remove_peer(&peer, now + MILLI * n as u32);
        assert!(score.len() <= MOST_RETAINED + 1);
    }
}

#[test]
fn a_settled_message_costs_nothing_any_more() {
    let params = TopicScoreParams { mesh_message_deliveries_weight: -1.0, ..silent() };
    let mut score = score(params, |_| {});
    let all: [PeerId; 8] = peers(&mut score);
    let mut now = Instant::now();
    for n in 0..100_000 {
        let message = fingerprint(n);
        score.validate_message(message, now);
        score.deliver_message(&all[0], message, &topic(), now);
        for peer in &all[1..] {
            score.duplicated_message(peer, &message, &topic(), now);
        }
        now += Duration::from_micros(600);
    }
    let each = score.delivery_bytes() as f64 / 100_000.0;
    assert!(each < 2.0, "{each} bytes a message");
    score.refresh(now + SECOND);
    assert!(score.delivery_bytes() < 16 * 1024, "{} bytes in all", score.delivery_bytes());
}

#[test]
fn a_flood_of_invalid_messages_is_bounded() {
    let params = TopicScoreParams { invalid_message_deliveries_weight: -1.0, ..silent() };
    let mut score = score(params, |_| {});
    let [peer] = peers(&mut score);
    let now = Instant::now();
    for n in 0..400_000 {
        score.validate_message(fingerprint(2 * n), now);
        score.validate_message(fingerprint(2 * n + 1), now);
        score.reject_message(&peer, fingerprint(2 * n), &topic(), now);
    }
    let bytes = score.delivery_bytes();
    assert!(bytes < 8 * 1024 * 1024, "{bytes} bytes");
    score.refresh(now + 121 * SECOND);
    assert!(score.delivery_bytes() < 16 * 1024, "{} bytes", score.delivery_bytes());
}

#[test]
fn new_parameters_cut_what_was_counted() {
    let params = TopicScoreParams { first_message_deliveries_weight: 1.0, ..silent() };
    let mut score = score(params.clone(), |_| {});
    let [peer] = peers(&mut score);
    for n in 0..10 {
        score.deliver_message(&peer, fingerprint(n), &topic(), Instant::now());
    }
    score.set_topic_params(topic(), TopicScoreParams { first_message_deliveries_cap: 4.0, ..params });
    assert_score(&score, &peer, 4.0);
    score.remove_topic_params(&topic());
    assert_score(&score, &peer, 0.0);
}

proptest! {
    /// What is kept of a score is what would come out if it were computed anew.
    #[test]
    fn a_known_score_is_the_true_one(steps in prop::collection::vec((0u8..14, 0usize..4, 0u64..6), 1..200)) {
        let params = TopicScoreParams {
            mesh_failure_penalty_weight: -1.0,
            invalid_message_deliveries_weight: -1.0,
            time_in_mesh_weight: 1.0,
            first_message_deliveries_weight: 1.0,
            ..p3()
        };
        let mut score = score(params, |params| params.ip_colocation_factor_threshold = 1.0);
        let all: [PeerId; 4] = peers(&mut score);
        let mut now = Instant::now();
        for (what, who, n) in steps {
            let (peer, message) = (all[who], fingerprint(n));
            let ip = IpAddr::from([10, 0, 0, n as u8]);
            match what {
                0 => score.add_peer(peer),
                1 => score.remove_peer(&peer, now),
                2 => score.add_ip(&peer, ip),
                3 => score.remove_ip(&peer, ip),
                4 => score.graft(&peer, &topic(), now),
                5 => score.prune(&peer, &topic()),
                6 => score.validate_message(message, now),
                7 => score.deliver_message(&peer, message, &topic(), now),
                8 => score.reject_message(&peer, message, &topic(), now),
                9 => score.duplicated_message(&peer, &message, &topic(), now),
                10 => score.add_penalty(&peer, 1),
                11 => score.slow_peer(&peer, 1),
                12 => score.refresh(now),
                _ => now += MILLI * (n as u32 * 300),
            }
            for peer in &all {
                let known = score.score(peer);
                let fresh = score.peers.get(peer).map_or(0.0, |stats| score.compute(stats));
                prop_assert_eq!(known, fresh);
                prop_assert!(known.is_finite());
            }
            prop_assert_eq!(score.numbers.len(), score.peers.len());
        }
    }
}
