//! `smidge demo --mqtt`: three nodes, and MQTT clients at each, of the demo's own.
//!
//! A client at the first node hears all; one at the second publishes, and leaves a value for those who come later; one at the
//! third has a will, which its node publishes when it is lost. Then that node is killed, and the others go on.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    super::{Failure, exit, print},
    PATIENCE,
    network::{Network, Wait},
};

/// How long a message is waited for before it is said again: the nodes may not have found each other.
const AGAIN: Duration = Duration::from_millis(500);

/// Where each node takes clients: a free port of its own address.
const SETS: &[&str] = &["mqtt.listen=ADDRESS:0", "mqtt.topic=mqtt"];

pub(super) fn run(is_json: bool) -> Result<(), Failure> {
    let mut network = Network::start(2, false, SETS)?;
    let mut story = Story::default();
    let result = play(&mut network, &mut story);
    network.stop();
    print(&if is_json { story.json(result.is_ok()) } else { story.text(result.is_ok()) })?;
    result
}

/// What happened, and what it took.
#[derive(Default)]
struct Story {
    lines: Vec<(Duration, String)>,
    delivery: Option<Duration>,
    will: Option<Duration>,
}

impl Story {
    fn add(&mut self, network: &Network, line: String) {
        self.lines.push((network.elapsed(), line));
    }

    fn text(&self, ok: bool) -> String {
        let mut out = String::new();
        for (at, line) in &self.lines {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:7.3} s  {line}", at.as_secs_f64());
        }
        let ms = |d: Option<Duration>| {
            d.map_or_else(|| "?".into(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3))
        };
        let _ = writeln!(
            out,
            "{}: from publish to delivery at another node {}; from a client's loss to its will {}",
            if ok { "done" } else { "failed" },
            ms(self.delivery),
            ms(self.will),
        );
        out
    }

    fn json(&self, ok: bool) -> String {
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let events: Vec<_> =
            self.lines.iter().map(|(at, line)| json!({ "ms": ms(*at), "line": line })).collect();
        let result = json!({
            "ok": ok,
            "publish_to_delivery_ms": self.delivery.map(ms),
            "loss_to_will_ms": self.will.map(ms),
            "events": events,
        });
        format!("{result}\n")
    }
}

fn failed(what: &str, e: impl std::fmt::Display) -> Failure {
    Failure::new(exit::FAILED, "demo", format!("{what}: {e}"))
}

fn play(network: &mut Network, story: &mut Story) -> Result<(), Failure> {
    network.step("three nodes with MQTT start".into());
    let mut places = Vec::new();
    for node in network.nodes() {
        let begins = "mqtt listening on mqtt://";
        network.wait(Wait::Line { node, begins }, PATIENCE)?;
        let line = network.lines(node).find_map(|line| line.message.strip_prefix(begins)).unwrap_or_default();
        let place: SocketAddr = line
            .split(',')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|e| failed("where a node takes MQTT clients", e))?;
        story.add(network, format!("{} takes MQTT clients on {place}", network.name(node)));
        places.push(place);
    }
    let [first, second, third] = places[..] else {
        return Err(failed("MQTT", "there are not three nodes"));
    };
    network.publish_name("bootstrap")?;
    network.publish_name("peer")?;
    let names: Vec<_> = network.nodes().map(|node| network.name(node).to_owned()).collect();
    let broken = |e: io::Error| failed("an MQTT client", e);
    let mut panel = Client::connect(first, "panel", None).map_err(broken)?;
    panel.subscribe("#").map_err(broken)?;
    story.add(network, format!("panel subscribes to # at {}", names[0]));
    let mut door = Client::connect(second, "door", None).map_err(broken)?;
    network.step("the nodes find each other".into());
    let mut said = Instant::now();
    door.publish("home/door", "open", false).map_err(broken)?;
    let deadline = Instant::now() + PATIENCE;
    let heard = loop {
        if let Some(heard) = panel.heard(AGAIN).map_err(broken)? {
            break heard;
        }
        if Instant::now() > deadline {
            return Err(failed("home/door", "nobody heard it at another node"));
        }
        network.listen_until(Instant::now())?;
        said = Instant::now();
        door.publish("home/door", "open", false).map_err(broken)?;
    };
    story.delivery = Some(said.elapsed());
    story.add(network, format!("door publishes home/door at {}; panel hears {heard}", names[1]));
    // What was said again arrives, too.
    while panel.heard(AGAIN).map_err(broken)?.is_some() {}

    network.step("a value stays for those who come later".into());
    door.publish("home/lamp", "on", true).map_err(broken)?;
    let heard = wait_for(&mut panel, network, "home/lamp", PATIENCE)?;
    story.add(network, format!("door publishes home/lamp, retained; panel hears {heard}"));
    let mut sensor = Client::connect(third, "sensor", Some(("home/sensor", "lost"))).map_err(broken)?;
    let deadline = Instant::now() + PATIENCE;
    // A retained value comes when it has reached that node.
    sensor.subscribe("home/lamp").map_err(broken)?;
    let heard = loop {
        if let Some(heard) = sensor.heard(AGAIN).map_err(broken)? {
            break heard;
        }
        if Instant::now() > deadline {
            return Err(failed("home/lamp", "it was not there at the third node"));
        }
        network.listen_until(Instant::now())?;
        sensor.subscribe("home/lamp").map_err(broken)?;
    };
    story.add(
        network,
        format!("sensor comes to {}, with a will, and hears {heard}, which was there before", names[2]),
    );
    sensor.publish("home/sensor", "here", false).map_err(broken)?;
    let heard = wait_for(&mut panel, network, "home/sensor", PATIENCE)?;
    story.add(network, format!("sensor publishes home/sensor; panel hears {heard}"));

    network.step("sensor is lost: its node publishes its will".into());
    drop(sensor);
    let lost = Instant::now();
    let heard = wait_for(&mut panel, network, "home/sensor", PATIENCE)?;
    story.will = Some(lost.elapsed());
    story.add(network, format!("sensor is lost, without a goodbye; panel hears its will: {heard}"));

    network.step(format!("{} is killed: do the others notice?", names[2]));
    network.kill_node(2);
    story.add(network, format!("{} is killed, as by a power cut", names[2]));
    door.publish("home/door", "closed", false).map_err(broken)?;
    let heard = wait_for(&mut panel, network, "home/door", PATIENCE)?;
    story.add(network, format!("door publishes home/door; panel hears {heard}: there was no broker to lose"));
    Ok(())
}

/// The next message of a topic.
fn wait_for(
    client: &mut Client,
    network: &mut Network,
    topic: &str,
    patience: Duration,
) -> Result<String, Failure> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // The nodes' lines are taken in meanwhile, and a signal ends it.
        network.listen_until(Instant::now())?;
        match client.heard(AGAIN).map_err(|e| failed("an MQTT client", e))? {
            Some(heard) if heard.starts_with(topic) => return Ok(heard),
            _ => {}
        }
    }
    Err(failed(topic, format!("it was not heard within {patience:?}")))
}

/// A client of MQTT 3.1.1, as much of it as this needs: QoS 0 and 1, short packets.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Short, all of them.
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl Client {
    fn connect(to: SocketAddr, id: &str, will: Option<(&str, &str)>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        let mut client = Self { stream, buffer: Vec::new() };
        // Clean session; the will at QoS 1.
        let flags = if will.is_some() { 0b1110 } else { 0b10 };
        let mut body = b"\0\x04MQTT\x04".to_vec();
        body.extend_from_slice(&[flags, 0, 60]);
        text(&mut body, id);
        if let Some((topic, said)) = will {
            text(&mut body, topic);
            text(&mut body, said);
        }
        client.send(0x10, &body)?;
        match client.packet(PATIENCE)? {
            Some((0x20, answer)) if answer.get(1) == Some(&0) => Ok(client),
            other => Err(io::Error::other(format!("{id} was refused: {other:?}"))),
        }
    }

    fn send(&mut self, first: u8, body: &[u8]) -> io::Result<()> {
        let length = u8::try_from(body.len()).ok().filter(|length| *length < 128);
        let length = length.ok_or_else(|| io::Error::other("a packet too long for the demo"))?;
        self.stream.write_all(&[&[first, length][..], body].concat())
    }

    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(1);
        self.send(0x82, &body)
    }

    fn publish(&mut self, topic: &str, said: &str, retain: bool) -> io::Result<()> {
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(said.as_bytes());
        self.send(if retain { 0x33 } else { 0x32 }, &body)
    }

    /// The next message within so long, as TOPIC PAYLOAD. What this node says of itself is left out.
    fn heard(&mut self, patience: Duration) -> io::Result<Option<String>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some((first, body)) = self.packet(left)? else { return Ok(None) };
            if first & 0xf0 != 0x30 {
                continue;
            }
            let broken = || io::Error::other("a PUBLISH packet that is none");
            let (length, rest) = body.split_first_chunk::<2>().ok_or_else(broken)?;
            let (topic, rest) =
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(broken)?;
            let mut payload = rest;
            if first & 0b110 != 0 {
                let (pid, rest) = rest.split_first_chunk::<2>().ok_or_else(broken)?;
                self.send(0x40, pid)?;
                payload = rest;
            }
            return Ok(Some(format!(
                "{} {}",
                String::from_utf8_lossy(topic),
                String::from_utf8_lossy(payload)
            )));
        }
    }

    /// The next packet within so long: its first byte, and what is behind its length.
    fn packet(&mut self, patience: Duration) -> io::Result<Option<(u8, Vec<u8>)>> {
        let deadline = Instant::now() + patience;
        loop {
            if let [first, length, rest @ ..] = &self.buffer[..]
                && *length < 128
                && let Some(body) = rest.get(..usize::from(*length))
            {
                let packet = (*first, body.to_vec());
                self.buffer.drain(..2 + packet.1.len());
                return Ok(Some(packet));
            }
            if self.buffer.get(1).is_some_and(|length| *length >= 128) {
                return Err(io::Error::other("a packet too long for the demo"));
            }
            // Zero would be for ever.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
