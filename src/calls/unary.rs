//! GetSummary, ListInvoices and GetInvoice: one job of a worker thread each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use protobuf::CodedOutputStream;

use crate::calls::call::Call;
use crate::calls::limits::Held;
use crate::calls::sweep::Look;
use crate::calls::{token, validate, Core};
use crate::config::Config;
use crate::error::{quoted, Error, Result};
use crate::model::{self, Filter};
use crate::proto::report::{
    CurrencyTotal, GetInvoiceRequest, ListInvoicesRequest, ListInvoicesResponse, Summary,
    SummaryRequest,
};
use crate::stop::{Reason, Stop};
use crate::store::encode::Chunk;
use crate::store::{History, Store, Wait};
use crate::workers::Ticket;

/// The query of a GetSummary.
pub fn summary(request: SummaryRequest) -> Result<Query<impl Read<Summary>>> {
    let filter = validate::summary(request)?;
    Ok(Query {
        cost: if filter.has_dates() { Cost::Unbounded } else { Cost::Totals },
        read: move |store: &Store, wait: Wait<'_>| {
            store.summary(&filter, wait).and_then(summary_message)
        },
    })
}

/// The query of a ListInvoices.
pub fn page(config: &Config, request: &ListInvoicesRequest) -> Result<Query<impl Read<Page>>> {
    let (filter, size) = validate::list(request, config.max_page_size)?;
    let after = token::decode(&filter, &request.page_token)?;
    // With statuses or dates a page may read any number of invoices that do not match.
    let is_bounded = filter.statuses == Filter::ALL_STATUSES && !filter.has_dates();
    // A page that finds little ends while there is time to send it.
    let most = config.page_scan_rows;
    let late = Instant::now() + Duration::from_millis(config.unary_timeout_ms) / 2;
    let is_enough = move |read| read >= most || Instant::now() >= late;
    Ok(Query {
        cost: match is_bounded {
            true if size <= config.inline_rows => Cost::Page,
            true => Cost::LargePage,
            false => Cost::Unbounded,
        },
        read: move |store: &Store, wait: Wait<'_>| {
            let (page, next) = store.page(&filter, after, size, is_enough, wait)?;
            Ok(page_message(&filter, page, next))
        },
    })
}

/// The query of a GetInvoice.
pub fn invoice(config: &Config, request: GetInvoiceRequest) -> Result<Query<impl Read<Page>>> {
    let (max_events, before) = validate::get_invoice(&request, config.max_page_size)?;
    Ok(Query {
        // One that goes on may pass over any number of events.
        cost: match before == i64::MAX {
            true if max_events <= config.inline_rows => Cost::Page,
            true => Cost::LargePage,
            false => Cost::Unbounded,
        },
        read: move |store: &Store, wait: Wait<'_>| {
            let id = &request.invoice_id;
            let history = store.history(id, max_events, before, wait)?;
            let none = || Error::NotFound(format!("no invoice has the invoice_id {}", quoted(id)));
            history.ok_or_else(none).and_then(history_message)
        },
    })
}

/// The response of an invoice with its events, which are encoded already.
fn history_message(history: History) -> Result<Page> {
    let History { mut invoice, events, next_before } = history;
    let mut response = invoice.take_batch();
    let mut rest = CodedOutputStream::vec(&mut response);
    let mut written = (0..events.len()).try_for_each(|i| rest.write_bytes(2, events.row(i)));
    if let Some(next) = next_before {
        written = written.and_then(|()| rest.write_int64(3, next));
    }
    let unfit = |error| Error::Internal(format!("a response cannot be encoded: {error}"));
    written.and_then(|()| rest.flush()).map_err(unfit)?;
    drop(rest);
    Ok(Page { rows: 1 + events.len(), response })
}

/// The response of a page. The invoices are encoded already, and fields of a message may be encoded one
/// after another.
fn page_message(filter: &Filter, mut page: Chunk, next: Option<i64>) -> Page {
    let (rows, mut response) = (page.len(), page.take_batch());
    if let Some(next) = next {
        let next_page_token = token::encode(filter, next);
        let rest = ListInvoicesResponse { next_page_token, ..Default::default() };
        // OK because a `Vec` takes every write.
        protobuf::Message::write_to_vec(&rest, &mut response).expect("a message encodes");
    }
    Page { rows, response }
}

/// What a call asks of the database.
pub struct Query<F> {
    cost: Cost,
    read: F,
}

/// How a query reads. It may be run twice: where the first try would have had to wait.
pub trait Read<T>: Fn(&Store, Wait<'_>) -> Result<T> + Clone + Send + 'static {}

impl<T, F: Fn(&Store, Wait<'_>) -> Result<T> + Clone + Send + 'static> Read<T> for F {}

/// What answers a unary call.
pub trait Answer: Send + 'static {
    /// Its bytes that are kept until the client takes them.
    fn bytes(&self) -> usize;
    fn rows(&self) -> usize;
}

/// What answers a ListInvoices or a GetInvoice.
pub struct Page {
    rows: usize,
    /// The bytes of the message.
    pub response: Vec<u8>,
}

impl Answer for Page {
    fn bytes(&self) -> usize {
        self.response.len()
    }

    fn rows(&self) -> usize {
        self.rows
    }
}

/// It is small: a line a currency.
impl Answer for Summary {
    fn bytes(&self) -> usize {
        0
    }

    fn rows(&self) -> usize {
        self.totals.len()
    }
}

/// How long a query takes.
#[derive(Clone, Copy, PartialEq)]
enum Cost {
    /// Some microseconds, less than handing it to another thread.
    Totals,
    /// A tenth of a millisecond, as long as that.
    Page,
    /// Some milliseconds.
    LargePage,
    Unbounded,
}

/// The unary calls that are under way.
#[derive(Default)]
pub struct UnderWay {
    all: AtomicUsize,
    unbounded: AtomicUsize,
}

/// One of them, from its message to its end.
struct Counted<'a> {
    core: &'a Core,
    is_unbounded: bool,
    /// Whether there was no other when it began.
    is_alone: bool,
}

impl Counted<'_> {
    fn begin(core: &Core, is_unbounded: bool) -> Counted<'_> {
        let UnderWay { all, unbounded } = &core.unary_calls;
        let is_alone = all.fetch_add(1, Ordering::Relaxed) == 0;
        unbounded.fetch_add(usize::from(is_unbounded), Ordering::Relaxed);
        Counted { core, is_unbounded, is_alone }
    }

    /// Whether a query is run here and now, and not on a worker thread.
    ///
    /// A page is read here for a lone caller, who gets it sooner, and elsewhere when calls overlap: then
    /// the threads of gRPC have enough to do. (`load ADDR list` of benches/compare, on 2 cores: with 1 caller
    /// 1.3 times the pages a second here, with 10 callers 1.6 times elsewhere.) But no page waits for long
    /// queries, and none is refused: it is read here too where its peer has its share of the queue.
    fn is_for_here(&self, cost: Cost) -> bool {
        match cost {
            Cost::Totals => true,
            Cost::Page => self.is_alone || self.may_workers_be_taken(),
            Cost::LargePage | Cost::Unbounded => false,
        }
    }

    fn may_workers_be_taken(&self) -> bool {
        let unbounded = self.core.unary_calls.unbounded.load(Ordering::Relaxed);
        unbounded >= self.core.config.unary_workers
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let UnderWay { all, unbounded } = &self.core.unary_calls;
        all.fetch_sub(1, Ordering::Relaxed);
        unbounded.fetch_sub(usize::from(self.is_unbounded), Ordering::Relaxed);
    }
}

/// Runs the query. The answer is kept by the transport until its client has taken it, and counts until then in
/// `max_answer_bytes`. `is_gone` tells whether nobody waits for it any more, by which nobody is woken.
pub async fn answer<T: Answer>(
    call: &Call,
    query: Result<Query<impl Read<T>>>,
    is_gone: impl FnMut() -> bool,
) -> Result<(T, Option<Held>)> {
    let is_unbounded = matches!(query, Ok(Query { cost: Cost::Unbounded, .. }));
    let counted = Counted::begin(&call.core, is_unbounded);
    let response = match query.and_then(|query| begin(call, &counted, query))? {
        Begun::Now(response) => response,
        Begun::Later(queued) => later(call, queued, is_gone).await?,
    };
    // What comes now takes no thread, and as long as the client likes.
    drop(counted);
    call.spent.rows.store(response.rows() as u64, Ordering::Relaxed);
    let held = call.core.limits.hold(response.bytes(), || call.peer())?;
    Ok((response, held))
}

enum Begun<T> {
    Now(T),
    Later(Queued<T>),
}

/// A query that a worker thread has, or will have. Dropping it takes it out of the queue, or ends it.
struct Queued<T> {
    result: oneshot::Receiver<Result<T>>,
    stop: Stop,
    _ticket: Ticket,
}

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        self.stop.stop(Reason::ClientGone);
    }
}

/// Reads here and now where that is quick, and hands the query to a worker thread where it is not.
fn begin<T: Answer>(
    call: &Call,
    counted: &Counted<'_>,
    query: Query<impl Read<T>>,
) -> Result<Begun<T>> {
    let Query { cost, read } = query;
    // What would have to wait does so on a worker thread.
    let here = || {
        call.spent.database.begin();
        let read = read(&call.core.store, Wait::No);
        call.spent.database.end();
        match read {
            Err(Error::Unavailable(_)) => Ok(None),
            read => read.map(Some),
        }
    };
    if counted.is_for_here(cost) {
        if let Some(response) = here()? {
            return Ok(Begun::Now(response));
        }
    }
    match queue(call, cost, read.clone()) {
        Err(refused) if cost == Cost::Page => here()?.map(Begun::Now).ok_or(refused),
        queued => queued.map(Begun::Later),
    }
}

/// The result of a query that a worker thread has, or why nobody waits for it any more: then the query
/// ends too.
async fn later<T>(
    call: &Call,
    mut queued: Queued<T>,
    mut is_gone: impl FnMut() -> bool,
) -> Result<T> {
    let Queued { result, stop, .. } = &mut queued;
    // A worker that is to stop drops what waits.
    let lost = || stop.reason().map_or_else(lost_job, Error::from);
    let result = async { result.await.unwrap_or_else(|_| Err(lost())) };
    let look = || {
        if is_gone() {
            stop.stop(Reason::ClientGone);
        }
        stop.check().map_or_else(|why| Look::Over(Err(why)), |()| Look::In(LOOK))
    };
    call.core.sweep.watch(None, result, look).await
}

/// Between two looks at whether the client still waits.
const LOOK: Duration = Duration::from_millis(50);

fn queue<T: Answer>(call: &Call, cost: Cost, read: impl Read<T>) -> Result<Queued<T>> {
    let (stop, core) = (stop(call), &call.core);
    let (reply, result) = oneshot::channel();
    let (for_job, store) = (stop.clone(), core.store.clone());
    let spent = Arc::clone(&call.spent);
    spent.queue.begin();
    let job = move || {
        spent.queue.end();
        spent.database.begin();
        let result = for_job.check().and_then(|()| read(&store, Wait::Until(&for_job)));
        spent.database.end();
        // OK to fail: the call is over.
        let _ = reply.send(result);
    };
    let peer = call.peer();
    let ticket = match cost {
        Cost::Unbounded => core.unary.submit_long(&peer, job),
        _ => core.unary.submit(&peer, job),
    };
    let _ticket = ticket.map_err(|refused| core.limits.unary_refused(refused))?;
    Ok(Queued { result, stop, _ticket })
}

/// The job panicked.
fn lost_job() -> Error {
    Error::Internal("the job of a unary call was dropped".to_owned())
}

/// Why a query must end.
fn stop(call: &Call) -> Stop {
    let max_ms = call.core.config.unary_timeout_ms;
    let until = Instant::now() + Duration::from_millis(max_ms);
    let limit = format!("unary_timeout_ms: the query took more than {max_ms} ms, with its wait");
    call.stop(&call.core.stopping.queries)
        .when(move || Instant::now() >= until, Reason::Limit(limit))
}

fn summary_message(summary: model::Summary) -> Result<Summary> {
    let counts = summary.totals.iter().map(|total| total.sums.invoice_count);
    Ok(Summary {
        invoice_count: counts.sum(),
        totals: summary.totals.into_iter().map(total_message).collect::<Result<_>>()?,
        last_sequence: summary.last_sequence,
        last_event_sequence: summary.last_event_sequence,
        ..Default::default()
    })
}

/// The message of a total; the same for summaries and uploads.
pub fn total_message(total: model::CurrencyTotal) -> Result<CurrencyTotal> {
    let sums = total.sums;
    Ok(CurrencyTotal {
        currency: total.currency,
        invoice_count: sums.invoice_count,
        total_cents: sums.total_cents,
        paid_cents: sums.paid_cents,
        outstanding_cents: sums
            .outstanding_cents()
            .ok_or_else(|| Error::Internal("an outstanding sum leaves 64 bits".to_owned()))?,
        credit_note_count: sums.credit_note_count,
        credit_note_cents: sums.credit_note_cents,
        void_count: sums.void_count,
        void_cents: sums.void_cents,
        ..Default::default()
    })
}
