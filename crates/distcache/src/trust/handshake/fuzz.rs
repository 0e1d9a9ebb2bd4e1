//! Handshakes with whoever may be there: one side with a stranger, or both sides with somebody in between who changes what is
//! said. Nobody gets in who does not know the secret, and nobody is taken for another.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::{DuplexStream, ReadBuf, duplex, join, sink};

use super::*;
use crate::fuzz_support::{RUNTIME, Script, Seed, Target};
use crate::trust::ClusterSecret;

/// What a stranger says, or what is changed between two nodes.
pub const HANDSHAKE: Target = Target { name: "handshake", run, seeds };

// What the first byte of an input says.
const IS_GREETED: u8 = 1;
const KEEPS_SECRET: u8 = 2;
const IN_BETWEEN: u8 = 4;

const CHANGES_MAX: usize = 32;

static ME: LazyLock<Hello> = LazyLock::new(|| Hello::new(Topic::Requests, "shop", "a", 1, 1 << 20));
static OTHER: LazyLock<Hello> = LazyLock::new(|| Hello::new(Topic::Requests, "shop", "b", 2, 1 << 20));

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let secret = ClusterSecret::new("a secret that nobody can guess").expect("it is long enough");
    KeyRing::new(&secret, "shop")
});

fn run(data: &[u8]) {
    let mut script = Script(data);
    let way = script.byte();
    let ring = (way & KEEPS_SECRET != 0).then_some(&*RING);
    let _time = RUNTIME.enter();
    match way & IN_BETWEEN {
        0 => meet_stranger(ring, way & IS_GREETED != 0, script.0),
        _ => meet_disturbed(ring, script),
    }
}

fn party<'a>(me: &'a Hello, ring: Option<&'a KeyRing>) -> Party<'a> {
    Party { me, ring, binding: [0; 32], name_error: &|_| None }
}

fn meet_stranger(ring: Option<&KeyRing>, is_greeted: bool, said: &[u8]) {
    let (me, mut stream) = (party(&ME, ring), join(said, sink()));
    let met = match is_greeted {
        true => me.receive_greeting(&mut stream, &|| true).now_or_never(),
        false => me.greet(&mut stream).now_or_never(),
    };
    match met.expect("it waits for nothing but the other side") {
        Ok(met) => {
            assert!(ring.is_none(), "whoever this is does not know the secret");
            assert_eq!(me.me.objection(&met.them), None);
            assert!(met.session.is_none());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn meet_disturbed(ring: Option<&KeyRing>, mut script: Script<'_>) {
    let mut changes = [Vec::new(), Vec::new()];
    while !script.is_over() && changes[0].len() + changes[1].len() < CHANGES_MAX {
        changes[usize::from(script.byte() & 1)].push((usize::from(script.number()), script.byte()));
    }
    let is_undisturbed = changes.iter().flatten().all(|(_, flipped)| *flipped == 0);
    let (greeter, greeted) = both(ring, &changes);
    for (met, other) in [(&greeter, &*OTHER), (&greeted, &*ME)] {
        match met {
            Some(Ok(met)) if ring.is_some() || is_undisturbed => {
                let them = Hello { keeps_secret: false, nonce: [0; 32], ..met.them.clone() };
                assert_eq!(them, *other, "it is who it says it is");
            }
            Some(Ok(met)) => assert!(met.session.is_none()),
            outcome => assert!(!is_undisturbed, "two of a kind meet: {outcome:?}"),
        }
    }
    if let (Some(Ok(Met { session: Some(greeter), .. })), Some(Ok(Met { session: Some(greeted), .. }))) =
        (greeter, greeted)
    {
        hear_each_other(&greeter, &greeted);
        hear_each_other(&greeted, &greeter);
    }
}

fn hear_each_other(one: &Session, other: &Session) {
    let mut said = b"said".to_vec();
    one.sending.seal(0, b"", &mut said, 0);
    assert_eq!(other.receiving.open(0, b"", &mut said).as_deref(), Some(&b"said"[..]));
}

type Outcome = Option<Result<Met, HandshakeError>>;

/// Until both have ended, or neither hears anything more.
fn both(ring: Option<&KeyRing>, changes: &[Vec<(usize, u8)>; 2]) -> (Outcome, Outcome) {
    let (here, there) = duplex(1 << 16);
    let heard = Cell::new(0);
    let disturbed = |stream, changes| Disturbed { stream, changes, at: 0, heard: &heard };
    let (mut here, mut there) = (disturbed(here, &changes[0]), disturbed(there, &changes[1]));
    let mut greeter = pin!(async move { party(&ME, ring).greet(&mut here).await }.fuse());
    let mut greeted = pin!(async move { party(&OTHER, ring).receive_greeting(&mut there, &|| true).await }.fuse());
    let mut outcomes = (None, None);
    loop {
        let before = heard.get();
        outcomes.0 = outcomes.0.or_else(|| greeter.as_mut().now_or_never());
        outcomes.1 = outcomes.1.or_else(|| greeted.as_mut().now_or_never());
        if heard.get() == before {
            return outcomes;
        }
    }
}

/// One end of a pipe in which some bytes are flipped before they are heard.
struct Disturbed<'a> {
    stream: DuplexStream,
    changes: &'a [(usize, u8)],
    at: usize,
    /// By both sides.
    heard: &'a Cell<usize>,
}

impl AsyncRead for Disturbed<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        for byte in &mut buf.filled_mut()[before..] {
            let here = self.changes.iter().filter(|(at, _)| *at == self.at);
            *byte = here.fold(*byte, |byte, (_, flipped)| byte ^ flipped);
            self.at += 1;
        }
        self.heard.set(self.heard.get() + buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Disturbed<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn seeds() -> Vec<Seed> {
    let hello = OTHER.said(None);
    let with_secret = OTHER.said(Some(&RING));
    let proof = [7; 32];
    let key = RING.spoken().id;
    let accepted = Verdict::Accepted(&hello);
    let refused = Verdict::<()>::Refused("this is cluster \"bank\", not \"shop\"".into());
    vec![
        ("greeted".into(), [&[IS_GREETED][..], &bytes(&hello)].concat()),
        ("accepted".into(), [&[0][..], &bytes(&accepted)].concat()),
        ("refused".into(), [&[0][..], &bytes(&refused)].concat()),
        (
            "greeted-with-proof".into(),
            [&[IS_GREETED | KEEPS_SECRET][..], &bytes(&with_secret), &bytes(&Proof { key, proof })].concat(),
        ),
        (
            "accepted-with-proof".into(),
            [&[KEEPS_SECRET][..], &bytes(&Verdict::Accepted(&with_secret)), &bytes(&Verdict::Accepted(proof))].concat(),
        ),
        ("in-between".into(), vec![IN_BETWEEN]),
        ("in-between-with-secret".into(), vec![IN_BETWEEN | KEEPS_SECRET]),
        ("in-between-another-name".into(), vec![IN_BETWEEN | KEEPS_SECRET, 1, 0, 36, 1]),
    ]
}

fn bytes(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    send(&mut bytes, message).now_or_never().expect("a vector takes all").expect("and does not fail");
    bytes
}
