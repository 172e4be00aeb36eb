use super::*;
use futures::executor::block_on;
use futures::future::poll_fn;
use futures::task::{waker, ArcWake};
use futures::StreamExt;
use proptest::prelude::*;
use std::future::Future;
use std::sync::atomic::AtomicUsize;
use std::task::Waker;
use std::thread;
use std::time::Instant;

/// Longer than any of these tests takes, so that a lost wake-up fails instead of hanging.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts its wake-ups.
#[derive(Default)]
struct Count(AtomicUsize);

impl ArcWake for Count {
    fn wake_by_ref(count: &Arc<Count>) {
        count.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn new() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (Arc::clone(&count), waker(count))
    }

    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn poll<T>(receiver: &mut Receiver<T>, waker: &Waker) -> Poll<Option<T>> {
    Pin::new(receiver).poll_next(&mut Context::from_waker(waker))
}

#[test]
fn a_full_channel_holds_the_sender_until_a_value_is_taken() {
    let (tx, mut rx) = bounded(2);
    let (woken, waker) = Count::new();
    let mut cx = Context::from_waker(&waker);
    assert!(tx.poll_ready(&mut cx).is_ready());
    tx.try_send(1).unwrap();
    tx.try_send(2).unwrap();
    assert!(matches!(tx.try_send(3), Err(TrySendError::Full(3))));
    assert!(tx.poll_ready(&mut cx).is_pending());
    assert_eq!(woken.take(), 0);
    assert_eq!(poll(&mut rx, &Count::new().1), Poll::Ready(Some(1)));
    assert_eq!(woken.take(), 1);
    assert!(tx.poll_ready(&mut cx).is_ready());
    tx.try_send(3).unwrap();
}

#[test]
fn a_send_waits_for_room_and_ends_with_the_receiver() {
    let (tx, rx) = bounded(1);
    let (woken, waker) = Count::new();
    let mut cx = Context::from_waker(&waker);
    block_on(tx.send(1)).unwrap();
    let mut second = Box::pin(tx.send(2));
    assert!(second.as_mut().poll(&mut cx).is_pending());
    assert_eq!(rx.try_recv(), Some(1));
    assert_eq!(woken.take(), 1);
    assert_eq!(second.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    let mut third = Box::pin(tx.send(3));
    assert!(third.as_mut().poll(&mut cx).is_pending());
    drop(rx);
    assert_eq!(woken.take(), 1);
    assert_eq!(third.as_mut().poll(&mut cx), Poll::Ready(Err(SendError(3))));
}

#[test]
fn a_thread_waits_for_room_up_to_its_timeout() {
    let (tx, rx) = bounded(1);
    tx.try_send(1).unwrap();
    let timeout = Duration::from_millis(5);
    assert!(matches!(tx.send_timeout(2, timeout), Err(SendTimeoutError::Timeout(2))));
    let taker = thread::spawn(move || (rx.recv(), rx.recv()));
    tx.send_timeout(2, DEADLINE).unwrap();
    assert_eq!(taker.join().unwrap(), (Ok(1), Ok(2)));
}

#[test]
fn dropping_the_sender_lets_the_rest_out_and_ends_the_stream() {
    let (tx, mut rx) = bounded(2);
    let (woken, waker) = Count::new();
    assert!(poll(&mut rx, &waker).is_pending());
    tx.try_send(1).unwrap();
    assert_eq!(woken.take(), 1);
    drop(tx);
    assert_eq!(poll(&mut rx, &waker), Poll::Ready(Some(1)));
    assert_eq!(poll(&mut rx, &waker), Poll::Ready(None));
}

#[test]
fn dropping_the_sender_wakes_a_receiver_that_waits() {
    let (tx, mut rx) = bounded::<u8>(1);
    let (woken, waker) = Count::new();
    assert!(poll(&mut rx, &waker).is_pending());
    drop(tx);
    assert_eq!(woken.take(), 1);
    assert_eq!(poll(&mut rx, &waker), Poll::Ready(None));
}

#[test]
fn dropping_the_receiver_wakes_a_sender_that_waits() {
    let (tx, rx) = bounded(1);
    let (woken, waker) = Count::new();
    tx.try_send(1).unwrap();
    assert!(tx.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    let closed = tx.closed();
    assert!(!closed.get());
    drop(rx);
    assert_eq!(woken.take(), 1);
    assert!(closed.get() && tx.is_closed());
    assert!(tx.poll_ready(&mut Context::from_waker(&waker)).is_ready());
    assert!(matches!(tx.try_send(2), Err(TrySendError::Disconnected(2))));
}

#[test]
fn dropping_the_receiver_ends_a_thread_that_waits() {
    let (tx, rx) = bounded(1);
    tx.try_send(1).unwrap();
    let start = Instant::now();
    let sender = thread::spawn(move || tx.send_timeout(2, DEADLINE));
    drop(rx);
    assert!(matches!(sender.join().unwrap(), Err(SendTimeoutError::Disconnected(2))));
    assert!(start.elapsed() < DEADLINE);
}

/// A thread sends, a future receives: each side is as fast as it can be, so that they meet in every
/// order. A lost wake-up leaves both asleep, and the watchdog ends the test.
#[test]
fn no_wake_up_is_lost_from_thread_to_future() {
    stress(|capacity, values| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || {
            (0..values).for_each(|i| tx.send_timeout(i, DEADLINE).unwrap());
        });
        let sum = block_on(rx.fold(0, |sum, i| async move { sum + i }));
        sender.join().unwrap();
        sum
    });
}

#[test]
fn no_wake_up_is_lost_from_future_to_thread() {
    stress(|capacity, values| {
        let (tx, rx) = bounded(capacity);
        let receiver = thread::spawn(move || std::iter::from_fn(|| rx.recv().ok()).sum::<u64>());
        block_on(send_all(tx, values));
        receiver.join().unwrap()
    });
}

#[test]
fn no_wake_up_is_lost_between_futures() {
    stress(|capacity, values| {
        let (tx, rx) = bounded(capacity);
        let sender = thread::spawn(move || block_on(send_all(tx, values)));
        let sum = block_on(rx.fold(0, |sum, i| async move { sum + i }));
        sender.join().unwrap();
        sum
    });
}

async fn send_all(tx: Sender<u64>, values: u64) {
    for i in 0..values {
        poll_fn(|cx| tx.poll_ready(cx)).await;
        tx.try_send(i).unwrap();
    }
}

fn stress(transfer: fn(usize, u64) -> u64) {
    for capacity in [1, 2, 7] {
        let (done, is_done) = crossbeam_channel::bounded(1);
        thread::spawn(move || done.send(transfer(capacity, 50_000)).unwrap());
        let sum = is_done.recv_timeout(DEADLINE).expect("a wake-up was lost");
        assert_eq!(sum, (0..50_000).sum::<u64>());
    }
}

/// One step of either side.
#[derive(Clone, Debug)]
enum Step {
    PollReady,
    TrySend,
    PollNext,
    TryRecv,
}

proptest! {
    /// Every order of the steps of both sides, against a queue: a side that was told to wait is
    /// woken as soon as it need not.
    #[test]
    fn whoever_waits_is_woken_when_it_can_go_on(
        capacity in 1..4usize,
        steps in prop::collection::vec(prop_oneof![
            Just(Step::PollReady), Just(Step::TrySend), Just(Step::PollNext), Just(Step::TryRecv),
        ], 0..60),
        sender_goes_first in any::<bool>(),
    ) {
        let (tx, mut rx) = bounded(capacity);
        let (room, room_waker) = Count::new();
        let (values, values_waker) = Count::new();
        let (mut sent, mut taken) = (0u32, 0u32);
        let (mut sender_waits, mut receiver_waits) = (false, false);
        for step in steps {
            let held = (sent - taken) as usize;
            match step {
                Step::PollReady => {
                    sender_waits = tx.poll_ready(&mut Context::from_waker(&room_waker)).is_pending();
                    prop_assert_eq!(sender_waits, held == capacity);
                    room.take();
                }
                Step::TrySend => {
                    prop_assert_eq!(tx.try_send(sent).is_ok(), held < capacity);
                    if held < capacity {
                        sent += 1;
                        prop_assert!(!std::mem::take(&mut receiver_waits) || values.take() > 0);
                    }
                }
                Step::PollNext | Step::TryRecv => {
                    let value = match step {
                        Step::TryRecv => rx.try_recv(),
                        _ => match poll(&mut rx, &values_waker) {
                            Poll::Ready(value) => value,
                            Poll::Pending => {
                                receiver_waits = true;
                                values.take();
                                None
                            }
                        },
                    };
                    prop_assert_eq!(value, (held > 0).then_some(taken));
                    if held > 0 {
                        taken += 1;
                        prop_assert!(!std::mem::take(&mut sender_waits) || room.take() > 0);
                    }
                }
            }
        }
        if sender_goes_first {
            drop(tx);
            prop_assert!(!receiver_waits || values.take() > 0);
            prop_assert_eq!(block_on(rx.count()), (sent - taken) as usize);
        } else {
            drop(rx);
            prop_assert!(!sender_waits || room.take() > 0);
            prop_assert!(tx.is_closed());
        }
    }
}

#[test]
fn a_receiver_that_waits_so_long_makes_room_too() {
    let (tx, rx) = bounded(1);
    let (woken, waker) = Count::new();
    assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    tx.try_send(1).unwrap();
    assert!(tx.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(rx.recv_timeout(DEADLINE), Ok(1));
    assert_eq!(woken.take(), 1);
    drop(tx);
    assert_eq!(rx.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
}

/// A task that owns the sender, and is woken by room in it, would otherwise keep itself.
#[test]
fn a_channel_without_a_receiver_keeps_no_waker() {
    let (tx, rx) = bounded::<()>(1);
    drop(rx);
    let (task, waker) = Count::new();
    assert!(tx.poll_ready(&mut Context::from_waker(&waker)).is_ready());
    drop(waker);
    assert_eq!(Arc::strong_count(&task), 1);
}
