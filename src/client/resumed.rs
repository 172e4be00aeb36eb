//! The batches of an export, across lost connections.

use grpcio::Method;

use super::{grpc, local, Client, Result, Retry, Transport};
use crate::calls::export::Wanted;
use crate::proto::report::{Summary, SummaryRequest};
use crate::stop::Stop;
use crate::store::encode::Chunk;

/// Some rows of an export, in the order of their sequence.
pub trait Batch: Sized {
    type Request: Wanted;

    /// The call in process.
    const METHOD: crate::method::Method;
    /// The call over gRPC.
    const RECEIVED: Method<Self::Request, Vec<u8>>;

    /// The highest sequence that there is.
    fn until(summary: &Summary) -> i64;

    /// What is still to come: the cursor, and the most rows (0: all).
    fn request(request: &mut Self::Request) -> (&mut i64, &mut i64);

    /// The rows of a message.
    fn from_wire(bytes: Vec<u8>) -> Result<Self>;

    /// The rows of a chunk of this process.
    fn from_chunk(chunk: Chunk) -> Result<Self>;

    fn len(&self) -> usize;

    /// The sequence of the last row; 0 where there is none.
    fn last_sequence(&self) -> i64;

    /// Takes those after the sequence `until` off.
    fn cut(&mut self, until: i64);
}

/// An export that goes on by itself.
pub struct Resumed<B: Batch> {
    client: Client,
    /// What is still to come: after each batch the cursor is set to its end.
    request: B::Request,
    /// The end of the set. A later call would have newer rows too, so the set is cut here.
    until: Option<i64>,
    /// How many were asked for and did not come yet.
    left: Option<i64>,
    call: Option<Call>,
    retry: Retry,
    /// Whether a call was made.
    is_asked: bool,
    is_over: bool,
}

/// The call that is open.
enum Call {
    Grpc(grpc::Batches),
    Local(Box<local::Batches>),
}

impl Call {
    /// The next batch; `None` at the end of the stream.
    fn next<B: Batch>(&mut self, stop: &Stop) -> Result<Option<B>> {
        match self {
            Call::Grpc(batches) => batches.next(stop)?.map(B::from_wire).transpose(),
            Call::Local(batches) => {
                batches.next::<B::Request>(stop)?.map(B::from_chunk).transpose()
            }
        }
    }
}

impl<B: Batch> Resumed<B> {
    pub fn new(client: &Client, request: &B::Request) -> Resumed<B> {
        let mut request = request.clone();
        let most = *B::request(&mut request).1;
        Resumed {
            left: (most > 0).then_some(most),
            request,
            until: None,
            call: None,
            retry: client.retry(),
            client: client.clone(),
            is_asked: false,
            is_over: false,
        }
    }

    pub fn cursor(&self) -> i64 {
        self.request.cursor()
    }

    fn batch(&mut self) -> Result<Option<B>> {
        let until = self.until()?;
        if self.call.is_none() {
            // The first call is made for whatever was asked: the server says what is wrong with it.
            let is_all = self.cursor() >= until || self.left == Some(0);
            if self.is_asked && is_all {
                return Ok(None);
            }
            if let Some(left) = self.left {
                *B::request(&mut self.request).1 = left;
            }
            self.call = Some(self.open()?);
            self.is_asked = true;
        }
        let next = self.call.as_mut().map_or(Ok(None), |call| call.next::<B>(&self.client.stop))?;
        let Some(mut batch) = next else { return Ok(None) };
        let last = batch.last_sequence();
        if last > until {
            // What is still under way is newer too.
            self.call = None;
            batch.cut(until);
        }
        let cursor = B::request(&mut self.request).0;
        *cursor = (*cursor).max(last.min(until));
        self.left = self.left.map(|left| left.saturating_sub(batch.len() as i64).max(0));
        Ok(Some(batch))
    }

    fn until(&mut self) -> Result<i64> {
        if self.until.is_none() {
            self.until = Some(B::until(&self.client.summary_once(&SummaryRequest::default())?));
        }
        Ok(self.until.unwrap_or_default())
    }

    fn open(&self) -> Result<Call> {
        match &self.client.transport {
            Transport::Grpc(connection) => {
                connection.export(&B::RECEIVED, &self.request).map(Call::Grpc)
            }
            Transport::Local(local) => {
                let batches = local.export(B::METHOD, &self.request);
                batches.map(|batches| Call::Local(Box::new(batches)))
            }
        }
    }
}

impl<B: Batch> Iterator for Resumed<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        while !self.is_over {
            match self.batch() {
                Ok(Some(batch)) => {
                    self.retry.progressed();
                    if batch.len() > 0 {
                        return Some(Ok(batch));
                    }
                }
                Ok(None) => self.is_over = true,
                // All came, and only the end of the stream did not.
                Err(_) if self.left == Some(0) => self.is_over = true,
                Err(error) => {
                    self.call = None;
                    if let Err(error) = self.retry.wait(error) {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        self.call = None;
        None
    }
}
