//! GetSummary and ListInvoices: one job of a worker thread each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use grpcio::{Deadline, RpcContext, UnarySink};

use crate::error::{Error, Result};
use crate::model::{self, Filter};
use crate::proto::report::{
    CurrencyTotal, ListInvoicesRequest, ListInvoicesResponse, Summary, SummaryRequest,
};
use crate::service::codec::{Encoded, Request};
use crate::service::{status, token, validate, Shared};
use crate::stop::{Reason, Stop};
use crate::store::read;

pub fn get_summary(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    request: Request<SummaryRequest>,
    sink: UnarySink<Summary>,
) {
    let request = request.message("SummaryRequest", shared.config.max_request_bytes);
    let query = request.and_then(validate::summary).map(|filter| Query {
        cost: if filter.has_dates() { Cost::Unbounded } else { Cost::Totals },
        read: move |conn: &_| read::summary(conn, &filter).and_then(summary_message),
    });
    answer(shared, ctx, sink, query);
}

pub fn list_invoices(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    request: Request<ListInvoicesRequest>,
    sink: UnarySink<Encoded>,
) {
    let request = request.message("ListInvoicesRequest", shared.config.max_request_bytes);
    let query = request.and_then(|request| {
        let (filter, size) = validate::list(&request, shared.config.max_page_size)?;
        let after = token::decode(&filter, &request.page_token)?;
        // With statuses or dates a page may read any number of invoices that do not match.
        let is_page = size <= shared.config.inline_rows
            && filter.statuses == Filter::ALL_STATUSES
            && !filter.has_dates();
        Ok(Query {
            cost: if is_page { Cost::Page } else { Cost::Unbounded },
            read: move |conn: &_| page_message(conn, &filter, after, size),
        })
    });
    answer(shared, ctx, sink, query);
}

/// The response of a page. The invoices are encoded already, and fields of a message may be encoded one
/// after another.
fn page_message(
    conn: &read::Connection,
    filter: &Filter,
    after: i64,
    size: usize,
) -> Result<Encoded> {
    let (mut page, more) = read::page(conn, filter, after, size)?;
    let last_sequence = page.last_sequence();
    let mut response = page.take_batch();
    if more {
        let next_page_token = token::encode(filter, last_sequence);
        let rest = ListInvoicesResponse { next_page_token, ..Default::default() };
        // OK because a `Vec` takes every write.
        protobuf::Message::write_to_vec(&rest, &mut response).expect("a message encodes");
    }
    Ok(response.into())
}

/// What a call asks of the database.
struct Query<F> {
    cost: Cost,
    read: F,
}

/// How long a query takes.
enum Cost {
    /// Some microseconds, less than handing it to another thread.
    Totals,
    /// A tenth of a millisecond, as long as that.
    Page,
    Unbounded,
}

/// The unary calls that are under way.
#[derive(Default)]
pub struct UnderWay {
    all: AtomicUsize,
    unbounded: AtomicUsize,
}

/// One of them.
struct Call {
    shared: Arc<Shared>,
    is_unbounded: bool,
    /// Whether there was no other when it began.
    is_alone: bool,
}

impl Call {
    fn begin(shared: &Arc<Shared>, is_unbounded: bool) -> Call {
        let UnderWay { all, unbounded } = &shared.unary_calls;
        let is_alone = all.fetch_add(1, Ordering::Relaxed) == 0;
        unbounded.fetch_add(usize::from(is_unbounded), Ordering::Relaxed);
        Call { shared: Arc::clone(shared), is_unbounded, is_alone }
    }

    /// Whether a query is run here and now, and not on a worker thread.
    ///
    /// A page is read here for a lone caller, who gets it sooner, and elsewhere when calls overlap: then
    /// the threads of gRPC have enough to do. (`load ADDR list` of benches/compare, on 2 cores: with 1 caller
    /// 1.3 times the pages a second here, with 10 callers 1.6 times elsewhere.) But no page waits for long
    /// queries, and none is refused.
    fn is_for_here(&self, cost: Cost) -> bool {
        match cost {
            Cost::Totals => true,
            Cost::Page => self.is_alone || self.may_workers_be_taken(),
            Cost::Unbounded => false,
        }
    }

    fn may_workers_be_taken(&self) -> bool {
        let unbounded = self.shared.unary_calls.unbounded.load(Ordering::Relaxed);
        unbounded >= self.shared.config.unary_workers || self.shared.unary.is_full()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let UnderWay { all, unbounded } = &self.shared.unary_calls;
        all.fetch_sub(1, Ordering::Relaxed);
        unbounded.fetch_sub(usize::from(self.is_unbounded), Ordering::Relaxed);
    }
}

/// Runs the query and sends its result.
fn answer<T: Send + 'static>(
    shared: &Arc<Shared>,
    ctx: RpcContext<'_>,
    sink: UnarySink<T>,
    query: Result<Query<impl Fn(&read::Connection) -> Result<T> + Send + 'static>>,
) {
    let is_unbounded = matches!(query, Ok(Query { cost: Cost::Unbounded, .. }));
    let call = Call::begin(shared, is_unbounded);
    let result = query.and_then(|Query { cost, read }| {
        let is_for_here = call.is_for_here(cost);
        let now = is_for_here.then(|| shared.store.reader.read_now(&read)).transpose()?;
        Ok(match now.flatten() {
            Some(response) => Answer::Now(response),
            None => Answer::Later(queue(shared, &ctx, read)?),
        })
    });
    ctx.spawn(async move {
        let result = match result {
            Ok(Answer::Now(response)) => Ok(response),
            Ok(Answer::Later(result)) => result.await.unwrap_or_else(|_| Err(lost_job())),
            Err(error) => Err(error),
        };
        call.shared.count(&result);
        // An error here is a call that is over already.
        let _ = match result {
            Ok(response) => sink.success(response).await,
            Err(error) => sink.fail(status::status(&error)).await,
        };
    });
}

enum Answer<T> {
    Now(T),
    Later(oneshot::Receiver<Result<T>>),
}

fn queue<T: Send + 'static>(
    shared: &Arc<Shared>,
    ctx: &RpcContext<'_>,
    read: impl Fn(&read::Connection) -> Result<T> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T>>> {
    let limit = TimeLimit::of(shared, ctx);
    let (reply, result) = oneshot::channel();
    let for_job = Arc::clone(shared);
    let job = move || {
        // OK to fail: the call is over.
        let _ = reply.send(limit.read(&for_job, read));
    };
    shared.unary.submit(job).map_err(|_| {
        let max = shared.config.max_queued_unary;
        shared.limits.exhausted(format!("max_queued_unary of {max} calls wait"))
    })?;
    Ok(result)
}

/// The worker dropped the job: it panicked, or the server is stopping.
fn lost_job() -> Error {
    Error::Internal("the job of a unary call was dropped".to_owned())
}

/// The limits on the time of a unary call.
#[derive(Clone, Copy)]
struct TimeLimit {
    deadline: Deadline,
    until: Instant,
    max_ms: u64,
}

impl TimeLimit {
    fn of(shared: &Shared, ctx: &RpcContext<'_>) -> TimeLimit {
        let max_ms = shared.config.unary_timeout_ms;
        TimeLimit {
            deadline: ctx.deadline(),
            until: Instant::now() + Duration::from_millis(max_ms),
            max_ms,
        }
    }

    /// Reads within the limits: what is interrupted is DEADLINE_EXCEEDED.
    fn read<T>(
        self,
        shared: &Shared,
        read: impl FnOnce(&read::Connection) -> Result<T>,
    ) -> Result<T> {
        let stop = self.stop();
        stop.check()?;
        shared.store.reader.read(&stop, read)
    }

    fn stop(self) -> Stop {
        let limit = format!("unary_timeout_ms: the query took more than {} ms", self.max_ms);
        Stop::default()
            .when(move || Instant::now() >= self.until, Reason::Limit(limit))
            .when(move || self.deadline.exceeded(), Reason::Deadline)
    }
}

fn summary_message(summary: model::Summary) -> Result<Summary> {
    let counts = summary.totals.iter().map(|total| total.invoice_count);
    Ok(Summary {
        invoice_count: counts.sum(),
        totals: summary.totals.into_iter().map(total_message).collect::<Result<_>>()?,
        last_sequence: summary.last_sequence,
        ..Default::default()
    })
}

/// The message of a total; the same for summaries and uploads.
pub fn total_message(total: model::CurrencyTotal) -> Result<CurrencyTotal> {
    let outstanding_cents = total.total_cents.checked_sub(total.paid_cents);
    Ok(CurrencyTotal {
        currency: total.currency,
        invoice_count: total.invoice_count,
        total_cents: total.total_cents,
        paid_cents: total.paid_cents,
        outstanding_cents: outstanding_cents
            .ok_or_else(|| Error::Internal("an outstanding sum leaves 64 bits".to_owned()))?,
        ..Default::default()
    })
}
