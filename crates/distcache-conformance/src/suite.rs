//! One test for each scenario.
//!
//! Knows neither worlds nor scenarios, only how to run them. The invariant: a scenario ends, by itself or by panic.

use std::time::Duration;

use crate::world::World;

/// No scenario takes longer; whatever hangs is a failure.
const SCENARIO_MAX: Duration = Duration::from_secs(240);

/// One `#[test]` for each scenario, in a world that `$make_world`, an `async fn() -> impl World`, makes for it.
///
/// The [crate](crate) has an example.
#[macro_export]
macro_rules! suite {
    ($make_world:path) => {
        $crate::suite! { $make_world:
            boots_alone
            boots_together
            a_node_joins
            a_node_leaves
            service_down_at_boot
            service_down_later
            wrong_answers
            duplicates_and_self
            nothing_flaps
        }
    };
    ($make_world:path: $($scenario:ident)*) => {
        $(
            #[test]
            fn $scenario() {
                $crate::run($make_world, $crate::$scenario);
            }
        )*
    };
}

/// Runs one scenario on a runtime of its own: `run(make_world, distcache_conformance::boots_together)`.
///
/// # Panics
/// When the scenario fails, or takes minutes.
pub fn run<W, M, S>(make_world: impl FnOnce() -> M, scenario: impl FnOnce(W) -> S)
where
    W: World,
    M: Future<Output = W>,
    S: Future<Output = ()>,
{
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.block_on(async {
        let played = async { scenario(make_world().await).await };
        let ended = tokio::time::timeout(SCENARIO_MAX, played).await;
        assert!(ended.is_ok(), "the scenario has not ended within {SCENARIO_MAX:?}");
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}
