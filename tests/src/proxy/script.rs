//! What a proxy shall do, and to which requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request, as rules see it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query, as they were sent.
    pub path: String,
    /// The headers, as they were sent.
    pub headers: Vec<(String, String)>,
    /// The body; rules that decide do not see it yet, [`Fault::Invent`] does.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer that the upstream never gave.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) early: bool,
}

impl Answer {
    /// An answer without a body.
    pub fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), early: false }
    }

    /// One of S3's errors.
    pub fn s3(status: u16, code: &str, message: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        Answer::new(status).header("Content-Type", "application/xml").body(body)
    }

    /// S3's way to ask for fewer requests.
    pub fn slow_down() -> Answer {
        Answer::s3(503, "SlowDown", "Please reduce your request rate.")
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Answer {
        Answer { body: body.into(), ..self }
    }

    /// Given before the request's body is read, upon which the connection is closed.
    #[must_use]
    pub fn early(self) -> Answer {
        Answer { early: true, ..self }
    }
}

/// What happens to a request. Positions count bytes of a body from its beginning, and are moved to just before its end
/// when it is shorter; where there is no body, to the middle of the head.
#[derive(Clone)]
pub enum Fault {
    /// Nobody listens any more, for so long; this request and all connections are reset.
    Outage(Duration),
    /// Reset before anything is passed on.
    Reset,
    /// So many bytes of the body are passed on, then both sides are reset.
    ResetRequest(u64),
    /// Passed on; so many bytes of the answer's body come, then a reset.
    ResetAnswer(u64),
    /// Passed on; so many bytes of the answer's body come, then the connection is closed as if all were well.
    Truncate(u64),
    /// Passed on after this time.
    Delay(Duration),
    /// So many bytes of the body are read, and never any more; nothing is passed on.
    StallRequest(u64),
    /// Read, but neither passed on nor answered.
    Swallow,
    /// Passed on, and no answer ever comes.
    StallHead,
    /// Passed on; so many bytes of the answer's body come, and never any more.
    StallAnswer(u64),
    /// Passed on; the answer comes in pieces of so many bytes, each after a pause.
    Slow(usize, Duration),
    /// Answered without being passed on.
    Answer(Answer),
    /// Passed on twice, as a network may; the second answer counts.
    Duplicate,
    /// Passed on and done, but the connection is reset instead of answered.
    LoseAnswer,
    /// Only the first half of the body is passed on, as if that were all; the answer is 200 whatever the upstream says.
    KeepHalf,
    /// One bit of the body is flipped on the way there.
    FlipRequest(u64),
    /// One bit of the answer's body is flipped on the way back.
    FlipAnswer(u64),
    /// Answered by a function of the test, which sees the whole request.
    Invent(Arc<dyn Fn(&Request) -> Answer + Send + Sync>),
}

impl Fault {
    /// Answered 200 without being passed on.
    pub fn keep_nothing() -> Fault {
        Fault::Answer(Answer::new(200).header("ETag", "\"d41d8cd98f00b204e9800998ecf8427e\""))
    }

    /// Whether it needs no knowledge of requests.
    pub(super) fn is_raw(&self) -> bool {
        use Fault::{
            Answer, Delay, Duplicate, FlipAnswer, FlipRequest, Invent, KeepHalf, LoseAnswer, Outage, Reset,
            ResetAnswer, ResetRequest, Slow, StallAnswer, StallHead, StallRequest, Swallow, Truncate,
        };
        match self {
            Outage(_) | Reset | ResetRequest(_) | ResetAnswer(_) | Truncate(_) | Delay(_) => true,
            StallRequest(_) | StallAnswer(_) | FlipRequest(_) | FlipAnswer(_) => true,
            Swallow | StallHead | Slow(..) | Answer(_) | Duplicate | LoseAnswer | KeepHalf | Invent(_) => {
                false
            }
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Outage(time) => write!(f, "Outage({time:?})"),
            Fault::Reset => f.write_str("Reset"),
            Fault::ResetRequest(at) => write!(f, "ResetRequest({at})"),
            Fault::ResetAnswer(at) => write!(f, "ResetAnswer({at})"),
            Fault::Truncate(at) => write!(f, "Truncate({at})"),
            Fault::Delay(time) => write!(f, "Delay({time:?})"),
            Fault::StallRequest(at) => write!(f, "StallRequest({at})"),
            Fault::Swallow => f.write_str("Swallow"),
            Fault::StallHead => f.write_str("StallHead"),
            Fault::StallAnswer(at) => write!(f, "StallAnswer({at})"),
            Fault::Slow(bytes, pause) => write!(f, "Slow({bytes}, {pause:?})"),
            Fault::Answer(answer) => write!(f, "Answer({})", answer.status),
            Fault::Duplicate => f.write_str("Duplicate"),
            Fault::LoseAnswer => f.write_str("LoseAnswer"),
            Fault::KeepHalf => f.write_str("KeepHalf"),
            Fault::FlipRequest(at) => write!(f, "FlipRequest({at})"),
            Fault::FlipAnswer(at) => write!(f, "FlipAnswer({at})"),
            Fault::Invent(_) => f.write_str("Invent"),
        }
    }
}

type Condition = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// A fault, the requests that it happens to, and how often.
#[derive(Clone)]
pub struct Rule {
    pub(super) fault: Fault,
    conditions: Vec<Condition>,
    skip: usize,
    times: usize,
    applied: usize,
}

impl Rule {
    /// For the first request that fits.
    pub fn once(fault: Fault) -> Rule {
        Rule::times(1, fault)
    }

    /// For the first `times` requests that fit.
    pub fn times(times: usize, fault: Fault) -> Rule {
        Rule { fault, conditions: Vec::new(), skip: 0, times, applied: 0 }
    }

    /// For every request that fits.
    pub fn always(fault: Fault) -> Rule {
        Rule::times(usize::MAX, fault)
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(self, method: &'static str) -> Rule {
        self.when(move |request| request.method == method)
    }

    /// Only requests whose path or query has `part`.
    #[must_use]
    pub fn path(self, part: &str) -> Rule {
        let part = part.to_owned();
        self.when(move |request| request.path.contains(&part))
    }

    /// Only requests with this header.
    #[must_use]
    pub fn header(self, name: &'static str) -> Rule {
        self.when(move |request| request.header(name).is_some())
    }

    /// Only requests that `condition` wants.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Rule {
        self.conditions.push(Arc::new(condition));
        self
    }

    /// Leaves the first `requests` that fit alone.
    #[must_use]
    pub fn after(self, requests: usize) -> Rule {
        Rule { skip: requests, ..self }
    }

    pub(super) fn applied(&self) -> usize {
        self.applied
    }

    /// The fault, when the rule fits and is not used up.
    pub(super) fn apply(&mut self, request: &Request) -> Option<Fault> {
        if self.applied == self.times || !self.conditions.iter().all(|condition| condition(request)) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.applied += 1;
        Some(self.fault.clone())
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?}, applied {} of {})", self.fault, self.applied, self.times)
    }
}
