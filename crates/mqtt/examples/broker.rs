//! A broker for one machine, on smol: `cargo run --release -p smidge-mqtt --example broker 127.0.0.1:1883`. Everybody may do
//! everything. Without an address it tries itself out and ends.
//!
//! All that I/O needs of a broker: a task for each connection, which reads as much as there is and writes all that waits
//! in one go, and one for what is due.

#![allow(clippy::print_stdout, reason = "an example")]

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future::select, task::AtomicWaker};
use smidge_mqtt::{Access, Action, Broker, ConnectionId, Limits};
use smidge_runtime::{Executor, Handle, TcpOptions, TcpStream};

struct State {
    broker: Broker,
    tasks: HashMap<ConnectionId, Arc<AtomicWaker>>,
    /// What is read is taken immediately: one buffer is enough for all connections.
    buffer: Box<[u8]>,
}

impl State {
    /// Does what the broker asks for. Without other brokers and without passwords, that is to wake connections.
    fn act(&mut self) {
        while let Some(action) = self.broker.next_action() {
            if let Action::Wake(id) = action
                && let Some(task) = self.tasks.get(&id)
            {
                task.wake();
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Connection {
    id: ConnectionId,
    stream: Box<dyn TcpStream>,
    waker: Arc<AtomicWaker>,
    out: Vec<u8>,
    written: usize,
    close: bool,
}

impl Connection {
    fn poll(&mut self, state: &Mutex<State>, runtime: &Handle, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waker.register(cx.waker());
        loop {
            if self.written == self.out.len() {
                let output = lock(state).broker.take(self.id, runtime.now());
                (self.out, self.written, self.close) = (output.bytes, 0, output.close);
                if self.out.is_empty() {
                    break;
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..])? {
                Poll::Ready(n) => self.written += n,
                Poll::Pending => break,
            }
        }
        if self.close && self.written == self.out.len() {
            return Poll::Ready(Ok(()));
        }
        let mut state = lock(state);
        let state = &mut *state;
        if !state.broker.wants_more(self.id) {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_read(cx, &mut state.buffer)? {
            Poll::Ready(0) => return Poll::Ready(Ok(())),
            Poll::Ready(n) => {
                state.broker.received(self.id, &state.buffer[..n], runtime.now());
                state.act();
                // Others first.
                cx.waker().wake_by_ref();
            }
            Poll::Pending => {}
        }
        Poll::Pending
    }
}

async fn serve(state: Arc<Mutex<State>>, stream: Box<dyn TcpStream>, runtime: Handle) {
    let waker = Arc::new(AtomicWaker::new());
    let id = {
        let mut state = lock(&state);
        let Ok(id) = state.broker.connect(runtime.now()) else { return };
        state.tasks.insert(id, waker.clone());
        id
    };
    let mut connection = Connection { id, stream, waker, out: Vec::new(), written: 0, close: false };
    // An error says that the client is gone, which `closed` says, too.
    let _ = poll_fn(|cx| connection.poll(&state, &runtime, cx)).await;
    let mut state = lock(&state);
    state.tasks.remove(&id);
    state.broker.closed(id, runtime.now());
    state.act();
}

/// A client's packets and what it gets for them, byte by byte.
async fn try_it(address: SocketAddr, runtime: Handle) -> io::Result<()> {
    let mut stream = runtime.connect_tcp(address, TcpOptions::default()).await?;
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
    let subscribe = b"\x82\x08\x00\x01\x00\x03a/#\x00";
    let publish = b"\x30\x0a\x00\x03a/bhello";
    stream.write_all(&[&connect[..], subscribe, publish].concat()).await?;
    let (connack, suback) = ([0x20, 2, 0, 0], [0x90, 3, 0, 1, 0]);
    let mut got = vec![0; connack.len() + suback.len() + publish.len()];
    stream.read_exact(&mut got).await?;
    assert_eq!(got, [&connack[..], &suback, publish].concat());
    println!("subscribed to a/#, published on a/b, and heard: {:?}", String::from_utf8_lossy(&got[16..]));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let bind: SocketAddr = address.as_deref().unwrap_or("127.0.0.1:0").parse()?;
    Ok(Executor::default().block_on(1, |runtime| async move {
        let listener = runtime.bind_tcp(bind, TcpOptions::default())?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = (runtime.now(), since_1970.as_micros() as u64);
        let broker = Broker::new(Limits::default(), Access::open(), 1, clock, || fastrand::u64(..));
        let buffer = vec![0; 64 << 10].into_boxed_slice();
        let state = Arc::new(Mutex::new(State { broker, tasks: HashMap::new(), buffer }));
        let (due, clock) = (state.clone(), runtime.clone());
        runtime.spawn(async move {
            loop {
                clock.sleep(Duration::from_millis(100)).await;
                let mut state = lock(&due);
                state.broker.tick(clock.now());
                state.act();
            }
        });
        let (bound, tasks) = (listener.local_addr(), runtime.clone());
        println!("MQTT at {bound}");
        let accept = async move {
            loop {
                let (stream, _) = poll_fn(|cx| listener.poll_accept(cx)).await?;
                tasks.spawn(serve(state.clone(), stream, tasks.clone()));
            }
        };
        match address {
            Some(_) => accept.await,
            None => select(Box::pin(accept), Box::pin(try_it(bound, runtime))).await.factor_first().0,
        }
    })??)
}
