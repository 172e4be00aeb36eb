//! `billstream reconcile`: payments in, acknowledgements out, both at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, BufWriter, Read, Stdout};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::thread;

use clap::Args;
use futures::channel::mpsc;
use futures::executor::block_on;
use futures::future::{select, Either};
use futures::stream::ReadyChunks;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, ClientDuplexReceiver, ClientDuplexSender, RpcStatusCode, WriteFlags};
use protobuf::Enum;

use billstream::client::Client;
use billstream::proto::report::{InvoiceStatus, ReconcileAck, ReconcileEvent, ReconcileOutcome};

use super::connection::Connection;
use super::failure::{status, Failure, Result};
use super::input;
use super::output::{stdout, Cell, Format, FormatArgs, RowWriter};
use super::progress::Progress;
use super::retry::{Retry, RetryArgs};
use super::rows::{Column, Need, Rows};
use super::values::{outcome_name, status_name};

/// Applies the payments of a csv or ndjson input, and prints an acknowledgement for each
///
/// The csv has the header event_id,invoice_id,amount_cents,currency,received_at,reference, in any order;
/// reference may be left out. The ndjson has an object with these members a line. What begins with
/// `{` is ndjson.
///
/// Acknowledgements come in the order of the events, while the input is still open. Each is
/// printed after its event is on disk. A payment that cannot be applied does not end the command:
/// its outcome says why (the exit code is 0). A line that cannot be read does: what was before it
/// is applied, and the exit code is 2. After a lost connection the events without an acknowledgement are
/// sent again, and none is applied twice.
#[derive(Args)]
pub struct Reconcile {
    /// The file, or - for stdin
    file: String,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    retry: RetryArgs,
}

const COLUMNS: &[Column] = &[
    Column::new("event_id", Need::Required),
    Column::new("invoice_id", Need::Required),
    Column::new("amount_cents", Need::Required),
    Column::new("currency", Need::Required),
    Column::new("received_at", Need::Required),
    Column::new("reference", Need::Optional),
];

const ACK_COLUMNS: [&str; 6] =
    ["event_id", "outcome", "invoice_status", "outstanding_cents", "duplicate", "message"];

/// Events that may be without their acknowledgement; then no more are sent.
const MAX_UNACKED: usize = 4096;
/// Events or acknowledgements that are handled without a flush between them.
const CHUNK: usize = 256;

pub fn run(args: &Reconcile) -> Result<()> {
    let mut session = Session {
        client: args.connection.client(),
        input: events(args.file.clone()).ready_chunks(CHUNK),
        input_failure: None,
        window: RefCell::new(Window::default()),
        acks: Acks::new(args.format.or(Format::Csv))?,
        retry: args.retry.start(),
    };
    let result = session.run();
    session.acks.rows.flush()?;
    session.acks.print_counts();
    result?;
    session.input_failure.map_or(Ok(()), Err)
}

type Events = mpsc::Receiver<Result<ReconcileEvent>>;

/// Reads events on a thread of its own: reading may wait for ever, and acknowledgements must not.
fn events(path: String) -> Events {
    let (mut sender, receiver) = mpsc::channel(CHUNK);
    thread::spawn(move || {
        // A failed send means that the command is over, and nobody is left to tell.
        if let Err(failure) = read(&path, &mut sender) {
            let _ = block_on(sender.send(Err(failure)));
        }
    });
    receiver
}

fn read(path: &str, events: &mut mpsc::Sender<Result<ReconcileEvent>>) -> Result<()> {
    let input: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        path => Box::new(input::open(path)?),
    };
    let mut rows = Rows::new(&input::display_name(path), COLUMNS, input)?;
    while rows.advance()? {
        if block_on(events.send(Ok(event(&rows)?))).is_err() {
            break;
        }
    }
    Ok(())
}

/// The event of the row at hand. What it says is for the server to judge, so that one bad payment
/// is REJECTED and the others go on.
fn event(rows: &Rows<impl Read>) -> Result<ReconcileEvent> {
    Ok(ReconcileEvent {
        event_id: rows.text("event_id")?.to_owned(),
        invoice_id: rows.text("invoice_id")?.to_owned(),
        amount_cents: rows.cents("amount_cents")?,
        currency: rows.text("currency")?.to_owned(),
        received_at: Some(rows.time("received_at")?).into(),
        reference: rows.text("reference")?.to_owned(),
        ..ReconcileEvent::default()
    })
}

/// The events that have no acknowledgement yet, in their order.
#[derive(Default)]
struct Window {
    unacked: VecDeque<ReconcileEvent>,
    /// How many of `unacked` were sent in the call at hand.
    sent: usize,
    /// Woken when an acknowledgement makes room.
    waker: Option<Waker>,
}

impl Window {
    /// The next event to send.
    fn next(&mut self) -> Option<ReconcileEvent> {
        let event = self.unacked.get(self.sent)?.clone();
        self.sent += 1;
        Some(event)
    }

    /// Takes the event that `ack` is for out of the window.
    fn acked(&mut self, ack: &ReconcileAck) -> Result<()> {
        let event = self.unacked.pop_front();
        // An id that is too long is not said again.
        let is_its =
            |event: &ReconcileEvent| ack.event_id.is_empty() || ack.event_id == event.event_id;
        if !event.as_ref().is_some_and(is_its) || self.sent == 0 {
            let expected = event.map_or("none".to_owned(), |event| format!("{:?}", event.event_id));
            let message =
                format!("the server acknowledged {:?}, expected {expected}", ack.event_id);
            return Err(Failure::Failed(message));
        }
        self.sent -= 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }
}

/// One run of the command, in as many calls as it takes.
struct Session {
    client: Client,
    input: ReadyChunks<Events>,
    /// Why the input ended early.
    input_failure: Option<Failure>,
    /// Shared by the two halves of a call, which one thread polls.
    window: RefCell<Window>,
    acks: Acks,
    retry: Retry,
}

impl Session {
    fn run(&mut self) -> Result<()> {
        // No call is open while there is nothing to send: the server would end it as idle.
        while !self.window.get_mut().unacked.is_empty() || block_on(self.fill()) {
            self.window.get_mut().sent = 0;
            match block_on(self.call()) {
                Err(Failure::Rpc(_)) if self.window.get_mut().unacked.is_empty() => {}
                Err(Failure::Rpc(status)) => self.retry.wait(status, &self.acks.progress)?,
                done => done?,
            }
        }
        Ok(())
    }

    /// Takes events from the input; false at its end.
    async fn fill(&mut self) -> bool {
        take(&mut self.input, &mut self.input_failure, &self.window).await
    }

    /// Sends and receives until the input is over and everything is acknowledged.
    async fn call(&mut self) -> Result<()> {
        let Session { client, input, input_failure, window, acks, retry } = self;
        let (sink, receiver) = client.reconcile(CallOption::default())?;
        let send = pin!(send(sink, input, input_failure, window));
        let receive = pin!(acks.receive(receiver, window, retry));
        match select(receive, send).await {
            Either::Left((received, _)) => received?,
            // A failed send only says that the call is over: how it ended is the receiver's to tell.
            Either::Right((_sink, receive)) => receive.await?,
        }
        match window.borrow().unacked.len() {
            0 => Ok(()),
            missing => {
                let message =
                    format!("the server ended the stream {missing} acknowledgements early");
                Err(Failure::Rpc(status(RpcStatusCode::UNAVAILABLE, &message)))
            }
        }
    }
}

/// Moves the events at hand from the input to the window; waits for one. False at the end of the input.
async fn take(
    input: &mut ReadyChunks<Events>,
    input_failure: &mut Option<Failure>,
    window: &RefCell<Window>,
) -> bool {
    if input_failure.is_some() {
        return false;
    }
    let Some(chunk) = input.next().await else {
        return false;
    };
    let unacked = &mut window.borrow_mut().unacked;
    let before = unacked.len();
    for event in chunk {
        match event {
            Ok(event) => unacked.push_back(event),
            Err(failure) => *input_failure = Some(failure),
        }
    }
    unacked.len() > before
}

/// Sends events as they come, and half-closes after the last. The sink is handed back, because
/// dropping it after a failure would cancel the call before its status is known.
async fn send(
    mut sink: ClientDuplexSender<ReconcileEvent>,
    input: &mut ReadyChunks<Events>,
    input_failure: &mut Option<Failure>,
    window: &RefCell<Window>,
) -> (ClientDuplexSender<ReconcileEvent>, grpcio::Result<()>) {
    // Events between two flushes go out in frames as large as can be.
    sink.enhance_batch(true);
    let result = async {
        loop {
            while let Some(event) = next(window) {
                sink.feed((event, WriteFlags::default())).await?;
            }
            sink.flush().await?;
            room(window).await;
            if !take(input, input_failure, window).await {
                return sink.close().await;
            }
        }
    }
    .await;
    (sink, result)
}

fn next(window: &RefCell<Window>) -> Option<ReconcileEvent> {
    window.borrow_mut().next()
}

/// Waits until the window has room for another chunk.
async fn room(window: &RefCell<Window>) {
    poll_fn(|context| {
        let mut window = window.borrow_mut();
        if window.unacked.len() + CHUNK <= MAX_UNACKED {
            return Poll::Ready(());
        }
        window.waker = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Acknowledgements on stdout.
struct Acks {
    rows: RowWriter<BufWriter<Stdout>>,
    /// How many had each outcome, by its number.
    counts: [u64; 8],
    duplicates: u64,
    progress: Progress,
}

impl Acks {
    fn new(format: Format) -> Result<Acks> {
        let mut rows = RowWriter::new(format, &ACK_COLUMNS, stdout())?;
        if format == Format::Csv {
            rows.flush()?;
        }
        Ok(Acks { rows, counts: [0; 8], duplicates: 0, progress: Progress::rows(None) })
    }

    async fn receive(
        &mut self,
        receiver: ClientDuplexReceiver<ReconcileAck>,
        window: &RefCell<Window>,
        retry: &mut Retry,
    ) -> Result<()> {
        let mut chunks = receiver.ready_chunks(CHUNK);
        while let Some(chunk) = chunks.next().await {
            for ack in chunk {
                let ack = ack?;
                window.borrow_mut().acked(&ack)?;
                self.print(&ack)?;
            }
            self.rows.flush()?;
            self.progress.set(self.counts.iter().sum());
            retry.progressed();
        }
        Ok(())
    }

    fn print(&mut self, ack: &ReconcileAck) -> Result<()> {
        let outcome = ack.outcome.enum_value_or(ReconcileOutcome::RECONCILE_OUTCOME_UNSPECIFIED);
        let status = ack.invoice_status.enum_value_or(InvoiceStatus::INVOICE_STATUS_UNSPECIFIED);
        self.counts[outcome.value() as usize] += 1;
        self.duplicates += u64::from(ack.duplicate);
        self.rows.row(&[
            Cell::Text(&ack.event_id),
            Cell::Text(outcome_name(outcome)),
            Cell::Text(status_name(status)),
            Cell::Int(ack.outstanding_cents),
            Cell::Bool(ack.duplicate),
            Cell::Text(&ack.message),
        ])
    }

    /// One line on stderr: `3 events: 1 PARTIAL, 2 SETTLED; 1 of them known before`.
    fn print_counts(&self) {
        let total: u64 = self.counts.iter().sum();
        let by_outcome = ReconcileOutcome::VALUES.iter().zip(self.counts);
        let counted = by_outcome.filter(|(_, count)| *count > 0);
        let names: Vec<_> =
            counted.map(|(&outcome, count)| format!("{count} {}", outcome_name(outcome))).collect();
        let outcomes = if names.is_empty() { "none" } else { &names.join(", ") };
        let known = match self.duplicates {
            0 => String::new(),
            duplicates => format!("; {duplicates} of them known before"),
        };
        self.progress.note(&format!("{total} events: {outcomes}{known}"));
    }
}
