//! Sources out of their minds, beside callers of another keyspace on the same nodes and connections.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use distcache::{Bytes, DataSource, Engine, Error, Fetched, GetOptions, Keyspace, KeyspaceSpec, SourceError};
use futures_util::future::join_all;

use super::traffic::{self, Traffic, is_in_owners_place};
use super::{Siege, siege};
use crate::harness::*;

const GIGABYTE: usize = 1 << 30;
const LOAD_TIMEOUT: Duration = Duration::from_millis(300);

/// Does what the beginning of the key says.
#[derive(Clone, Default)]
struct Mad(Arc<AtomicU64>);

impl DataSource for Mad {
    async fn fetch(&self, key: &str) -> Result<Fetched, SourceError> {
        self.0.fetch_add(1, SeqCst);
        match key.split('-').next().unwrap() {
            "giant" => Ok(Fetched::new(giant())),
            "hang" => std::future::pending().await,
            "panic" => panic!("as the key says"),
            "block" => {
                std::thread::sleep(Duration::from_secs(1));
                Ok(Fetched::new(value_of(key)))
            }
            _ => Ok(Fetched::new(value_of(key))),
        }
    }

    async fn fetch_many(&self, keys: &[&str]) -> Vec<Result<Fetched, SourceError>> {
        let mut answers = join_all(keys.iter().map(|key| self.fetch(key))).await;
        match keys.iter().find_map(|key| key.split('-').next().filter(|word| ["few", "many", "none"].contains(word))) {
            Some("few") => drop(answers.pop()),
            Some("many") => answers.extend((0..100_000).map(|_| Ok(Fetched::new("too much")))),
            Some(_) => answers.clear(),
            None => {}
        }
        answers
    }
}

/// Taken from the system; nobody has to write or read it.
fn giant() -> Bytes {
    Bytes::from(vec![0; GIGABYTE])
}

struct Asylum {
    siege: Siege,
    nodes: Vec<Engine>,
    traffic: Traffic,
    mad: Mad,
    /// The keyspace as its callers on the first node see it.
    asker: Keyspace,
}

async fn asylum() -> Asylum {
    let siege = siege();
    let (plan, truth) = traffic::plan();
    let (mad, mut nodes) = (Mad::default(), Vec::new());
    for name in ["n0", "n1"] {
        let spec = KeyspaceSpec::new("mad", mad.clone()).load_timeout(LOAD_TIMEOUT * 10);
        nodes.push(plan.builder(name).keyspace(spec).start().await.unwrap());
    }
    agree(&nodes).await;
    let traffic = Traffic::begin(&nodes, &truth).await;
    let asker = nodes[0].keyspace("mad").unwrap();
    Asylum { siege, nodes, traffic, mad, asker }
}

impl Asylum {
    /// A key that begins so, of each owner.
    fn keys(&self, word: &str) -> Vec<String> {
        let owned_by = |name: String| {
            let mut keys = (0..).map(|n| format!("{word}-{n}"));
            keys.find(|key| self.asker.owner_of(key).unwrap().name == name).unwrap()
        };
        self.nodes.iter().map(|node| owned_by(node.me().name)).collect()
    }

    /// The same node and the same connection answer for other keys of the same keyspace.
    async fn end(self) {
        for key in self.keys("fine") {
            let entry = self.asker.get_entry(&key, GetOptions::new()).await.unwrap();
            assert_eq!(entry.value, value_of(&key));
            assert!(!is_in_owners_place(&self.asker, &key, entry.origin), "{key} from {:?}", entry.origin);
        }
        assert_eq!(self.asker.stats().fetch_failures, 0);
        self.traffic.end_unharmed().await;
        self.siege.assert_no_panic();
    }
}

fn is_giant(error: &Error) -> bool {
    matches!(error, Error::ValueTooLarge { len: GIGABYTE, max } if *max == 4 << 20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_gigabyte_is_refused_loaded_once_and_its_memory_given_back() {
    const ROUNDS: usize = 4;
    let asylum = asylum().await;
    #[cfg(target_os = "linux")]
    let before = super::sockets::memory().reserved;
    let (giants, fine) = (asylum.keys("giant"), asylum.keys("beside"));
    for _ in 0..ROUNDS {
        for key in &giants {
            let loads = asylum.mad.0.load(SeqCst);
            let error = asylum.asker.get(key).await.unwrap_err();
            assert!(is_giant(&error), "{error}");
            assert_eq!(asylum.mad.0.load(SeqCst), loads + 1, "nobody loads it again to find it too large again");
        }
        let values = asylum.asker.get_many(&[&giants[1], &fine[0], &fine[1]]).await.unwrap();
        assert!(is_giant(values[0].as_ref().unwrap_err()));
        let beside = [values[1].as_ref().unwrap(), values[2].as_ref().unwrap()];
        assert_eq!(beside, [&value_of(&fine[0]), &value_of(&fine[1])]);
        let error = asylum.asker.put(&fine[1], giant()).await.unwrap_err();
        assert!(is_giant(&error), "{error}");
    }
    let refused: u64 = asylum.nodes.iter().map(|node| node.keyspace("mad").unwrap().stats().refused_too_large).sum();
    assert_eq!(refused, 4 * ROUNDS as u64);
    // Others than this test take some memory too, but not half of what one of these ways would have kept.
    #[cfg(target_os = "linux")]
    eventually("it is given back", || super::sockets::memory().reserved < before + ROUNDS * GIGABYTE / 2).await;
    asylum.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_hangs_costs_its_callers_the_load_timeout_and_nobody_else_anything() {
    let asylum = asylum().await;
    let settings = KeyspaceSpec::new("mad", asylum.mad.clone()).load_timeout(LOAD_TIMEOUT);
    asylum.nodes[0].update_keyspace(settings).await.unwrap();
    let hanging: Vec<String> = (0..200).map(|n| format!("hang-{n}")).collect();
    let asked = join_all(hanging.iter().map(|key| asylum.asker.get(key)));
    let fine = async {
        for n in 0..50 {
            let key = format!("beside-{n}");
            assert_eq!(asylum.asker.get(&key).await.unwrap(), value_of(&key));
        }
    };
    let (hung, ()) = tokio::join!(asked, fine);
    for error in hung.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error, Error::LoadTimeout { limit: LOAD_TIMEOUT }), "{error}");
    }
    asylum.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_panics_fails_the_keys_that_were_asked_for_and_no_other() {
    let asylum = asylum().await;
    for key in asylum.keys("panic") {
        for _ in 0..20 {
            let error = asylum.asker.get(&key).await.unwrap_err();
            assert!(matches!(&error, Error::SourcePanicked { message } if message == "as the key says"), "{error}");
        }
    }
    asylum.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_too_few_or_too_many_answers_fails_whole_and_is_never_guessed() {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(AtomicU64::default);
    let asylum = asylum().await;
    for word in ["few", "many", "none"] {
        for owner in 0..2 {
            let name = asylum.nodes[owner].me().name;
            let fresh = (0..).map(|_| format!("{word}-{}", NEXT.fetch_add(1, SeqCst)));
            let mine = fresh.filter(|key| asylum.asker.owner_of(key).unwrap().name == name);
            let keys: Vec<String> = mine.take(5).collect();
            for error in asylum.asker.get_many(&keys).await.unwrap().into_iter().map(Result::unwrap_err) {
                let says_so = error.to_string().contains("answers to 5 keys");
                assert!(matches!(error, Error::Source(SourceError::Failed(_))) && says_so, "{word}: {error}");
            }
            for key in keys {
                assert_eq!(asylum.asker.get(&key).await.unwrap(), value_of(&key), "nothing of it was stored");
            }
        }
    }
    asylum.end().await;
}

/// It holds a thread of the runtime, and there are others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_that_blocks_its_thread_for_a_second_harms_no_other_key() {
    let asylum = asylum().await;
    let keys = asylum.keys("block");
    for (key, value) in keys.iter().zip(join_all(keys.iter().map(|key| asylum.asker.get(key))).await) {
        assert_eq!(value.unwrap(), value_of(key));
    }
    asylum.end().await;
}
