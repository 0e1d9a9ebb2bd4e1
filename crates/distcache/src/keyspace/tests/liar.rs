//! An owner whose answers are damaged, beside one whose answers are not.

use std::ops::ControlFlow;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;
use crate::peer::wire::{Answer, Request, RequestId, Response, Value, cut_frame};
use crate::trust::Stream;

const PATIENCE: Duration = Duration::from_secs(20);
/// So long that no busy machine makes a silent peer of an honest one.
const AMPLE_BUDGET: Duration = Duration::from_secs(5);

/// What an owner answers, before it is damaged.
fn answers() -> Vec<Response<'static>> {
    let value = Value {
        value: b"a value",
        loaded: true,
        is_stale: false,
        age: Duration::from_millis(5),
        remaining: None,
        lease: Duration::from_secs(5),
        version: 9,
    };
    vec![
        Response::One(Answer::Value(value)),
        Response::One(Answer::NotFound),
        Response::One(Answer::NotOwner),
        Response::One(Answer::Failed(Error::Timeout { limit: Duration::from_millis(20) })),
        Response::Many(vec![Answer::Value(value), Answer::NoRoom]),
        Response::Written(vec![None, Some(Error::KeyEmpty)]),
        Response::Done,
        Response::Registry(b"state"),
        Response::Refused(Error::Shutdown),
    ]
}

fn encoded(answer: &Response<'_>, id: RequestId) -> Vec<u8> {
    let mut out = BytesMut::new();
    answer.encode(id, &mut out);
    out.to_vec()
}

/// One bit that is wrong, or the end of what is sent.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Cut(usize),
}

fn all_damages() -> Vec<(usize, Damage)> {
    let of = |(which, answer): (usize, &Response<'_>)| {
        let bytes = encoded(answer, RequestId(0)).len();
        let damages = (0..bytes * 8).map(Damage::Flip).chain((0..bytes).map(Damage::Cut));
        damages.map(move |damage| (which, damage)).collect::<Vec<_>>()
    };
    answers().iter().enumerate().flat_map(of).collect()
}

impl Damage {
    fn done_to(self, mut answer: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Flip(bit) => answer[bit / 8] ^= 1 << (bit % 8),
            Self::Cut(len) => answer.truncate(len),
        }
        answer
    }
}

/// Answers one question on each connection with what it is handed, and hangs up.
async fn lie(listener: TcpListener, gate: Arc<Gate>, mut lies: mpsc::Receiver<(usize, Damage)>) {
    let hello = Hello::new(Topic::Requests, "test", "liar", 1, Limits::default().frame_bytes_max());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let guest = gate.admit(stream, &hello, PATIENCE, &|| true).await.unwrap();
        #[allow(irrefutable_let_patterns, reason = "without TLS there is one kind of stream")]
        let Stream::Plain(mut stream) = guest.stream else { panic!("no TLS") };
        let mut received = BytesMut::new();
        let asked = loop {
            if let Some(frame) = cut_frame(&mut received, 1 << 20).unwrap() {
                match Request::decode(&frame).unwrap() {
                    (id, Request::Get(_)) => break ControlFlow::Continue(id),
                    _ => continue,
                }
            }
            if tokio::io::AsyncReadExt::read_buf(&mut stream, &mut received).await.unwrap_or(0) == 0 {
                break ControlFlow::Break(());
            }
        };
        if let ControlFlow::Continue(id) = asked {
            // Who heard from a node that it is not the owner asks again by itself: to that there is nothing to say.
            let (which, damage) = match lies.try_recv() {
                Ok(lie) => lie,
                Err(mpsc::error::TryRecvError::Empty) => continue,
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            };
            let _ = stream.write_all(&damage.done_to(encoded(&answers()[which], id))).await;
        }
    }
}

fn owned_by(puppet: &Puppet, name: &'static str, word: &str) -> impl Iterator<Item = String> + use<> {
    let (core, word) = (puppet.core.clone(), word.to_owned());
    (0..).map(move |n| format!("{word}-{n}")).filter(move |key| core.owner_name(core.hash(key)) == name)
}

/// The asker's own keys and those of the honest owner go on while every answer of the liar is damaged in another way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damaged_answer_harms_anything_but_its_own_connection() {
    let source = Counting::default();
    let a = puppet_with("a", &source, AMPLE_BUDGET).await;
    let b = puppet_with("b", &source, AMPLE_BUDGET).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar = listener.local_addr().unwrap();
    let view = |me: &str| {
        let addrs = [("a", a.addr), ("b", b.addr), ("liar", liar)];
        addrs.map(|(name, addr)| peer(name, addr, PeerState::Ready, name == me)).to_vec()
    };
    a.node.adopt(view("a"));
    b.node.adopt(view("b"));
    let (tell, lies) = mpsc::channel(1);
    tokio::spawn(lie(listener, Arc::default(), lies));

    let stop = CancellationToken::new();
    let beside = {
        let (core, keys, stop) = (a.core.clone(), owned_by(&a, "b", "beside"), stop.clone());
        let mine = owned_by(&a, "a", "mine");
        tokio::spawn(async move {
            let mut read = 0;
            for (theirs, mine) in keys.zip(mine).take_while(|_| !stop.is_cancelled()) {
                for (key, origin) in [(theirs, Origin::Loaded), (mine, Origin::Loaded)] {
                    let asked = Instant::now();
                    let entry = core.ask_within(&key, GetOptions::new()).await.unwrap();
                    assert_eq!((entry.value, entry.origin), (Bytes::from(format!("value of {key}")), origin));
                    assert!(asked.elapsed() < AMPLE_BUDGET, "{key} took {:?}", asked.elapsed());
                    read += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            read
        })
    };
    let damages = all_damages();
    let count = damages.len();
    assert!(count > 1_500, "{count}");
    let mut keys = owned_by(&a, "liar", "lied-about");
    for damage in damages {
        tell.send(damage).await.expect("the liar goes on");
        // A question over the connection that the liar has just left never reaches it: then it is asked another.
        while tell.capacity() == 0 {
            let answered = tokio::time::timeout(PATIENCE, get(&a, &keys.next().unwrap())).await;
            // What is damaged and still makes sense is believed: an owner says what it likes of its own keys.
            drop(answered.unwrap_or_else(|_| panic!("no answer after {damage:?}")));
        }
    }
    stop.cancel();
    let read = beside.await.expect("every other answer was right, from its owner and in time");
    assert!(read > 100, "{read}");
    assert!(b.core.stats().served >= read / 2, "the honest owner was asked all the time");
}

/// Whoever grants a lease of ages is believed no longer than the keyspace says.
#[tokio::test]
async fn a_lease_of_ages_is_cut_to_what_the_keyspace_says() {
    let (a, age) = (puppet("a", &Counting::default()).await, Duration::from_millis(u64::MAX - 1));
    a.node.adopt(vec![peer("a", a.addr, PeerState::Ready, true)]);
    let value =
        Value { value: b"v", loaded: false, is_stale: false, age, remaining: Some(age), lease: age, version: 1 };
    let record = a.core.hot_record("k", a.core.begin(), &value);
    let longest = a.node.clock.now().after(a.core.settings().lease);
    assert!(record.times.expires_at <= longest, "{:?}", record.times.expires_at);
}
