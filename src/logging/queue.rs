//! Where log lines go: a bounded queue, and the thread that writes it out, which is there while there are lines.
//!
//! Logging never waits for the reader of the log: stderr may be a pipe that is not read, or a
//! file on a disk that hangs. A line that finds no room is dropped and counted, and the count is logged
//! as soon as lines can be written again. Never decides which lines there are or how they look.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The stack of the thread that writes; it formats one line at most.
const STACK: usize = 128 << 10;
/// How long the thread stays when there is nothing to write.
const LINGER: Duration = Duration::from_secs(2);
/// How long is waited before a descriptor that takes nothing, and does not block either, is tried again.
const BREATHE: Duration = Duration::from_millis(20);

/// Lines that are not written yet. Clones are the same queue.
#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

struct Shared {
    /// Bytes that may wait; as many again may be with the thread that writes.
    capacity: usize,
    state: Mutex<State>,
    /// Held by the thread that writes.
    writer: Mutex<Option<Writer>>,
    /// There is something to write.
    filled: Condvar,
    /// All was written.
    emptied: Condvar,
    /// Lines dropped since the start.
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Lines dropped, and not reported yet.
    dropped: u64,
    /// Whether the thread is at work on lines that it took.
    writing: bool,
    /// Whether there is a thread that writes.
    is_running: bool,
}

struct Writer {
    out: Box<dyn Write + Send>,
    /// Writes that so many lines were dropped.
    notice: Box<dyn FnMut(u64) + Send>,
    /// Lines dropped, taken note of, and not reported yet.
    unsaid: u64,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            capacity,
            state: Mutex::default(),
            writer: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Has lines written to `out` from now on. `notice` writes there that so many lines were dropped.
    pub(super) fn write_to(
        &self,
        out: impl Write + Send + 'static,
        notice: impl FnMut(u64) + Send + 'static,
    ) {
        *lock(&self.0.writer) = Some(Writer { out: Box::new(out), notice: Box::new(notice), unsaid: 0 });
        let mut state = self.state();
        if !state.lines.is_empty() && !state.is_running {
            self.start(&mut state);
        }
    }

    /// Lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while state.writing || !state.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        // Once a line was dropped, the next ones follow it until that was reported: what is missing is in one
        // place.
        if state.dropped > 0 || state.lines.len() + line.len() > self.0.capacity {
            state.dropped += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        if state.is_running {
            drop(state);
            self.0.filled.notify_one();
        } else {
            self.start(&mut state);
        }
    }

    /// Starts the thread that writes. Where none can be started now, the next line tries again.
    fn start(&self, state: &mut State) {
        let queue = self.clone();
        let thread = thread::Builder::new().name("smidge-log".into()).stack_size(STACK);
        state.is_running = thread.spawn(move || queue.run()).is_ok();
    }

    fn run(&self) {
        let mut writer = lock(&self.0.writer);
        let Some(Writer { out, notice, unsaid }) = &mut *writer else {
            self.state().is_running = false;
            return;
        };
        let mut lines = Vec::new();
        loop {
            let mut state = self.state();
            state.writing = false;
            if state.lines.is_empty() {
                self.0.emptied.notify_all();
            }
            let waited = self.0.filled.wait_timeout_while(state, LINGER, |state| state.lines.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.lines.is_empty() {
                state.is_running = false;
                return;
            }
            state.writing = true;
            std::mem::swap(&mut lines, &mut state.lines);
            // Those came after the ones that were just taken.
            *unsaid += std::mem::take(&mut state.dropped);
            drop(state);
            let written = write(out, &lines);
            if written < lines.len() {
                // The disk is full, or the pipe has lost its reader.
                let lost = lines[written..].iter().filter(|byte| **byte == b'\n').count() as u64;
                self.0.dropped.fetch_add(lost, Ordering::Relaxed);
                *unsaid += lost;
            } else if *unsaid > 0 {
                notice(std::mem::take(unsaid));
            }
            lines.clear();
            lines.shrink_to(self.0.capacity / 8);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of `bytes` could be written.
fn write(out: &mut dyn Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // The parent process made the descriptor non-blocking.
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(BREATHE),
            Err(_) => break,
        }
    }
    written
}

/// One line a call, as env_logger has it.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        sync::mpsc,
    };

    use super::*;

    /// Takes nothing before it is let.
    struct Stuck(mpsc::Receiver<()>, io::PipeWriter);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error says that it is let for good.
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_never_waits_and_what_is_dropped_is_counted_and_said_in_its_place() {
        let mut queue = Queue::new(1000);
        let (reader, writer) = io::pipe().unwrap();
        let (go, wait) = mpsc::channel();
        let mut notices = writer.try_clone().unwrap();
        queue.write_to(Stuck(wait, writer), move |n| notices.write_all(format!("{n}\n").as_bytes()).unwrap());
        for n in 0..10_000 {
            queue.write_all(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        let dropped = queue.dropped();
        assert!((9_800..10_000).contains(&dropped), "{dropped}");
        queue.flush(Duration::from_millis(10)); // does not wait for ever
        drop(go);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut next, mut said) = (0, 0);
        while next + said < 10_000 {
            let line = lines.next().unwrap();
            match line.strip_prefix("line ") {
                Some(n) => {
                    assert_eq!(n.parse::<u64>().unwrap(), next + said, "each is there, or counted before");
                    next += 1;
                }
                None => said += line.parse::<u64>().unwrap(),
            }
        }
        assert_eq!(said, dropped);
        queue.write_all(b"line again\n").unwrap();
        assert_eq!(lines.next().unwrap(), "line again");
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.dropped(), dropped);
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing_but_its_lines() {
        let mut queue = Queue::new(1000);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        queue.write_to(writer, |_| {});
        for _ in 0..3 {
            queue.write_all(b"two\nlines\n").unwrap();
            queue.flush(Duration::from_secs(60));
        }
        assert_eq!(queue.dropped(), 6);
    }

    #[test]
    fn the_thread_goes_when_there_is_nothing_to_write_and_the_next_line_brings_another() {
        let mut queue = Queue::new(1000);
        let (reader, writer) = io::pipe().unwrap();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        queue.write_all(b"before there is anywhere to write\n").unwrap();
        queue.write_to(writer, |_| {});
        assert_eq!(lines.next().unwrap(), "before there is anywhere to write");
        for n in 0..2 {
            while queue.state().is_running {
                thread::sleep(Duration::from_millis(10));
            }
            queue.write_all(format!("line {n}\n").as_bytes()).unwrap();
            assert_eq!(lines.next().unwrap(), format!("line {n}"));
        }
    }
}
