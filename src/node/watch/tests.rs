use super::*;

const S: Duration = Duration::from_secs(1);
/// Whether the peer's stream stands, and ours.
const UP: (bool, bool) = (true, true);
const SENDING: (bool, bool) = (false, true);
const HEARD: (bool, bool) = (true, false);
const BROKEN: (bool, bool) = (false, false);

/// A watch, a peer, and what happens to it.
struct Scene {
    watch: Watch,
    peer: PeerId,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { watch: Watch::default(), peer: PeerId::random(), now: Instant::now() }
    }

    fn connect(&mut self, n: usize) {
        self.watch.connected(self.peer, connection(n), false, self.now);
        self.watch.identified(self.peer, true, self.now);
    }

    fn close(&mut self, n: usize) {
        self.watch.closed(self.peer, connection(n));
    }

    fn change(&mut self, (heard, sending): (bool, bool)) -> bool {
        self.watch.changed(self.peer, heard, sending, self.now)
    }

    fn up(&mut self) -> bool {
        self.change(SENDING);
        self.change(UP)
    }

    fn state(&self) -> GossipState {
        self.watch.state(&self.peer).0
    }

    /// Who is late, and after how long; `None` if nobody ever is.
    fn late(&mut self) -> Option<(Duration, Late)> {
        let start = self.now;
        while let Some(at) = self.watch.deadline() {
            self.now = self.now.max(at);
            if let Some(late) = self.watch.take_late(self.now).pop() {
                return Some((self.now - start, late));
            }
        }
        None
    }
}

fn connection(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

#[test]
fn a_peer_whose_streams_stand_is_never_late() {
    let mut scene = Scene::new();
    scene.connect(1);
    assert_eq!(scene.state(), GossipState::Opening);
    assert!(!scene.up(), "it had not been off");
    assert_eq!((scene.state(), scene.late()), (GossipState::Up, None));
}

#[test]
fn a_peer_that_does_not_speak_gossip_or_has_not_said_so_is_left_alone() {
    let mut scene = Scene::new();
    scene.watch.connected(scene.peer, connection(1), false, scene.now);
    assert_eq!(scene.late(), None);
    scene.watch.identified(scene.peer, false, scene.now);
    assert_eq!((scene.state(), scene.late()), (GossipState::None, None));
}

#[test]
fn gossip_that_went_with_the_connection_that_carried_it_is_missed_on_the_one_that_stands() {
    let mut scene = Scene::new();
    scene.connect(1);
    scene.up();
    scene.connect(2);
    assert_eq!(scene.late(), None);
    scene.close(1);
    scene.change(SENDING);
    let (after, late) = scene.late().unwrap();
    assert_eq!((after, late.attempt), (PATIENCE, 0));
    assert!(late.why.contains("closed"), "{late:?}");
    assert_eq!(scene.state(), GossipState::Off);
}

#[test]
fn each_way_to_be_off_is_noticed() {
    let whys = [
        (vec![SENDING, UP, SENDING], "its stream closed"),
        (vec![SENDING, UP, HEARD], "our stream to it broke"),
        (vec![HEARD], "does not take our stream"),
        (vec![SENDING], "opens no stream"),
        (vec![], "does not take our stream"),
    ];
    for (changes, why) in whys {
        let mut scene = Scene::new();
        scene.connect(1);
        for change in &changes {
            scene.change(*change);
        }
        let (after, late) = scene.late().expect("it is late");
        assert_eq!((after, scene.state()), (PATIENCE, GossipState::Off), "{changes:?}");
        assert!(late.why.contains(why), "{late:?}");
    }
}

#[test]
fn attempts_come_later_and_later_and_are_forgotten_once_gossip_has_been_up_for_a_while() {
    let mut scene = Scene::new();
    let mut waits = Vec::new();
    for n in 0..9 {
        scene.connect(n);
        scene.change(HEARD);
        let (after, late) = scene.late().unwrap();
        assert_eq!(late.attempt as usize, n);
        waits.push(after.as_secs());
        scene.close(n);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    scene.connect(20);
    assert!(scene.up(), "it came back");
    assert_eq!(scene.late(), None);
    scene.change(BROKEN);
    assert_eq!(scene.late().unwrap().1.attempt, 0);
}

#[test]
fn a_flapping_peer_s_attempts_are_not_forgotten() {
    let mut scene = Scene::new();
    for n in 0..3 {
        scene.connect(n);
        scene.up();
        scene.now += STABLE / 2;
        scene.change(HEARD);
        assert_eq!(scene.late().unwrap().1.attempt as usize, n);
        scene.close(n);
    }
}

#[test]
fn a_peer_that_may_have_nothing_to_say_is_connected_anew_a_few_times_and_then_left_alone() {
    let mut scene = Scene::new();
    for n in 0..SILENT as usize {
        scene.connect(n);
        scene.change(SENDING);
        assert_eq!(scene.late().unwrap().1.attempt as usize, n);
        scene.close(n);
    }
    scene.connect(9);
    scene.change(SENDING);
    assert_eq!((scene.late(), scene.state()), (None, GossipState::Silent));
    assert!(scene.change(UP), "it had something to say");
}

#[test]
fn what_is_late_and_cannot_be_connected_anew_is_asked_for_again() {
    let mut scene = Scene::new();
    scene.connect(1);
    scene.change(HEARD);
    assert_eq!(scene.late().unwrap().0, PATIENCE);
    assert_eq!(scene.late().unwrap().0, PATIENCE * 2);
    assert_eq!(scene.late().unwrap().0, PATIENCE * 4);
}

#[test]
fn over_relays_alone_attempts_are_few() {
    let mut scene = Scene::new();
    for n in 0..SILENT as usize {
        scene.watch.connected(scene.peer, connection(n), true, scene.now);
        scene.watch.identified(scene.peer, true, scene.now);
        assert!(scene.late().is_some());
        scene.close(n);
    }
    scene.watch.connected(scene.peer, connection(9), true, scene.now);
    scene.watch.identified(scene.peer, true, scene.now);
    assert_eq!(scene.late(), None, "the other side may not want gossip over a relay");
}

#[test]
fn what_is_remembered_is_bounded() {
    let (mut watch, mut now) = (Watch::default(), Instant::now());
    for n in 0..REMEMBERED + 50 {
        let peer = PeerId::random();
        watch.connected(peer, connection(n), false, now);
        watch.identified(peer, true, now);
        now += PATIENCE;
        assert_eq!(watch.take_late(now).len(), 1);
        watch.closed(peer, connection(n));
        now += S / 1000;
    }
    assert!(watch.attempts.len() <= REMEMBERED + 1);
    assert!(watch.peers.is_empty());
    now += MEMORY;
    watch.take_late(now);
    assert!(watch.attempts.is_empty());
}

#[test]
fn what_many_peers_took_is_given_back_when_they_are_gone() {
    let (mut scene, peers) = (Scene::new(), (0..500).map(|_| PeerId::random()).collect::<Vec<_>>());
    for (n, peer) in peers.iter().enumerate() {
        scene.peer = *peer;
        scene.connect(n);
    }
    assert!(scene.watch.peers.capacity() >= peers.len());
    for (n, peer) in peers.iter().enumerate() {
        scene.peer = *peer;
        scene.close(n);
    }
    assert!(scene.watch.peers.capacity() < 128, "{}", scene.watch.peers.capacity());
}
