use super::*;

const S: Duration = Duration::from_secs(1);

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
        self.watch.closed(self.peer, connection(n), self.now);
    }

    fn change(&mut self, n: usize, change: Change) -> bool {
        self.watch.changed(self.peer, connection(n), change, self.now)
    }

    fn up(&mut self, n: usize) -> bool {
        self.change(n, Change::Sending);
        self.change(n, Change::Heard)
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
    assert!(!scene.up(1), "it had not been off");
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
    scene.up(1);
    scene.connect(2);
    scene.change(2, Change::Sending);
    assert_eq!(scene.late(), None);
    scene.close(1);
    let (after, late) = scene.late().unwrap();
    assert_eq!((after, late.attempt), (PATIENCE, 0));
    assert!(late.why.contains("closed"), "{late:?}");
    assert_eq!(scene.state(), GossipState::Off);
}

#[test]
fn each_way_to_be_off_is_noticed() {
    let whys = [
        vec![Change::Sending, Change::Heard, Change::Unheard("a frame is too large".into())],
        vec![Change::Sending, Change::Heard, Change::GivenUp("too many streams broke".into())],
        vec![Change::Heard],
        vec![],
    ];
    for changes in whys {
        let mut scene = Scene::new();
        scene.connect(1);
        for change in changes.clone() {
            scene.change(1, change);
        }
        let (after, late) = scene.late().expect("it is late");
        assert_eq!((after, scene.state()), (PATIENCE, GossipState::Off), "{changes:?}");
        if let Some(Change::Unheard(why) | Change::GivenUp(why)) = changes.last() {
            assert_eq!(&late.why, why);
        }
    }
}

#[test]
fn attempts_come_later_and_later_and_are_forgotten_once_gossip_has_been_up_for_a_while() {
    let mut scene = Scene::new();
    let mut waits = Vec::new();
    for n in 0..9 {
        scene.connect(n);
        scene.change(n, Change::GivenUp("broken".into()));
        let (after, late) = scene.late().unwrap();
        assert_eq!(late.attempt as usize, n);
        waits.push(after.as_secs());
        scene.close(n);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    scene.connect(20);
    assert!(scene.up(20), "it came back");
    assert_eq!(scene.late(), None);
    scene.change(20, Change::GivenUp("again".into()));
    assert_eq!(scene.late().unwrap().1.attempt, 0);
}

#[test]
fn a_flapping_peer_s_attempts_are_not_forgotten() {
    let mut scene = Scene::new();
    for n in 0..3 {
        scene.connect(n);
        scene.up(n);
        scene.now += STABLE / 2;
        scene.change(n, Change::GivenUp("broken".into()));
        assert_eq!(scene.late().unwrap().1.attempt as usize, n);
        scene.close(n);
    }
}

#[test]
fn a_peer_that_may_have_nothing_to_say_is_connected_anew_a_few_times_and_then_left_alone() {
    let mut scene = Scene::new();
    for n in 0..SILENT as usize {
        scene.connect(n);
        scene.change(n, Change::Sending);
        assert_eq!(scene.late().unwrap().1.attempt as usize, n);
        scene.close(n);
    }
    scene.connect(9);
    scene.change(9, Change::Sending);
    assert_eq!((scene.late(), scene.state()), (None, GossipState::Silent));
    assert!(scene.change(9, Change::Heard), "it had something to say");
}

#[test]
fn what_is_late_and_cannot_be_connected_anew_is_asked_for_again() {
    let mut scene = Scene::new();
    scene.connect(1);
    scene.change(1, Change::GivenUp("broken".into()));
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
        watch.closed(peer, connection(n), now);
        now += S / 1000;
    }
    assert!(watch.attempts.len() <= REMEMBERED + 1);
    assert!(watch.peers.is_empty());
    now += MEMORY;
    watch.take_late(now);
    assert!(watch.attempts.is_empty());
}
