//! A counterexample is to be read by people.

use distcache_model::{Rule, Scenario, search};

#[test]
fn a_counterexample_reads_as_a_story() {
    let story = search(Scenario::TWO_READERS.without(Rule::AwaitAcks)).counterexample.unwrap();
    let told = "  1  a caller asks at n
       n: fetch with 2 left
  2  the question of n comes to x
       x: asked by n · n holds for 2
  3  x sees to the question of n
       x: load, for n · n holds for 2
  4  a load of x reads v0
       x: load that read v0, for n · n holds for 2
  5  a load of x lands
       x: entry v0 begun 0 ago · n holds for 2
  6  the answer comes to n: v0, to be kept
       n: copy v0 for 2
  7  the source changes from v0
  8  the key is deleted at x: it is v1 now
       x: n holds for 2, told of v1
       promised: v1 at x · v1 at n · v1 at m
  9  a caller asks at n
     n answers v0; v1 was promised
";
    assert_eq!(story, told, "\n{story}");
}

#[test]
fn a_story_ends_with_the_broken_promise_and_says_every_change_before_it() {
    for rule in [Rule::LoadFence, Rule::LeaseFromSend, Rule::FetchDetach] {
        let story = search(Scenario::TWO_READERS.without(rule)).counterexample.unwrap();
        let steps: Vec<_> = story.lines().filter(|line| !line.starts_with("     ")).collect();
        assert!(
            steps.iter().zip(1..).all(|(step, number)| step.trim_start().starts_with(&number.to_string())),
            "{story}"
        );
        assert!(story.ends_with("v1 was promised\n"), "{story}");
    }
}
