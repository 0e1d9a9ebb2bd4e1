//! `distcache check`: what is wrong is said in one line that says where.

use crate::node::{binary, run};
use crate::shop::{Shop, guarded, standalone};

fn check(shop: &Shop, text: &str) -> (i32, String, String) {
    run(binary().args(["check", "--config"]).arg(shop.write("node.toml", text)))
}

#[test]
fn a_fine_file_is_told_in_words() {
    let shop = Shop::new();
    let (code, out, err) = check(&shop, &standalone());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("is fine"), "{out}");
    assert!(out.contains("by itself"), "{out}");
    assert!(
        out.contains("keyspace users: 64 MiB a node, entries live 5m; from sqlite:shop.db by `SELECT name"),
        "{out}"
    );
}

#[test]
fn the_rules_of_a_keyspace_are_told_in_words() {
    let shop = Shop::new();
    let (code, out, err) = check(&shop, &guarded());
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, rules) = out.split_once("keyspace guarded: 64 MiB a node, entries live 5m; no source").unwrap();
    let rules: Vec<&str> = rules.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        rules,
        [
            "where there is no room, what was read least recently has to go",
            "entries that nobody read for 1h go",
            "past its lifetime an entry is answered: 30s while it is loaded again, 1h where that fails, \
             also where a load takes longer than 200ms",
            "entries are loaded again beforehand: when read in the last 20 % of their lifetime, the 100 hottest also unread",
            "2 keys are loaded before anybody asks",
            "before the source, shared as guard db: 32 loads at once, 500 loads a second in bursts of 100, \
             waiting up to 50ms, none for 5s after 50 % of at least 20 within 10s have failed, up to 5 attempts",
        ]
    );
}

#[test]
fn a_typing_error_is_found_with_its_line_and_the_key_that_was_meant() {
    let shop = Shop::new();
    let (code, out, err) = check(&shop, "[keyspaces.users]\nsource = { kind = \"none\" }\nttll = \"5m\"\n");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("node.toml: unknown key `ttll` in [keyspaces.users] at line 3; did you mean `ttl`?"), "{err}");
}

#[test]
fn what_this_version_cannot_do_yet_is_said() {
    let shop = Shop::new();
    for (text, what) in [
        ("[redis]\n", "[redis] at line 1 is not supported by this version"),
        ("[admin]\ntoken_file = \"t\"\n", "`token_file` in [admin] at line 2 is not supported by this version"),
    ] {
        let (code, _, err) = check(&shop, text);
        assert_eq!(code, 1);
        assert!(err.contains(what), "{err}");
    }
}

#[test]
fn the_files_of_the_page_on_expiry_are_ones_that_nodes_take() {
    let shop = Shop::new();
    let page = include_str!("../../../../docs/expiry.md");
    let files: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(files.len(), 2);
    for text in files {
        let (code, _, err) = check(&shop, text);
        assert_eq!((code, err.as_str()), (0, ""), "{text}");
    }
}

#[test]
fn the_query_is_tried_unless_offline() {
    let shop = Shop::new();
    let text = standalone().replace("SELECT name FROM", "SELECT nmae FROM");
    let (code, _, err) = check(&shop, &text);
    assert_eq!(code, 1);
    assert!(err.contains("keyspace users: the query `SELECT nmae FROM users WHERE id = ?1` cannot work"), "{err}");
    assert!(err.contains("no such column: nmae"), "{err}");
    let (code, _, err) = run(binary().args(["check", "--offline", "--config"]).arg(shop.path().join("node.toml")));
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (code, _, err) = run(binary().args(["check", "--config", "/nowhere/node.toml"]));
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/node.toml: cannot be read"), "{err}");
}

#[test]
fn what_a_start_would_refuse_is_refused_and_named() {
    let shop = Shop::new();
    let cases = [
        (
            "[limits]\nvalue_bytes_max = \"2GiB\"\n".into(),
            "limits.value_bytes_max = 2147483648: must be at most 1073741824",
        ),
        (format!("[node]\nname = \"{}\"\n", "n".repeat(256)), "must be at most 255 bytes"),
        (
            "[http]\nlisten = \"127.0.0.1:8080\"\n[admin]\nlisten = \"127.0.0.1:8080\"\n".into(),
            "node.toml: `listen` in [http] and `listen` in [admin] are the same, 127.0.0.1:8080: each needs a port of its own",
        ),
        (
            format!("# {}\n", "endless ".repeat(1 << 20)),
            "node.toml: has more than 4194304 bytes: that is no configuration",
        ),
    ];
    for (text, said) in cases {
        let (code, out, err) = check(&shop, &text);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.contains(said), "{err}");
    }
}

#[test]
fn the_file_of_the_kubernetes_manifests_is_one_that_nodes_take() {
    let manifest = include_str!("../../../../deploy/kubernetes/config.yaml");
    let (_, block) = manifest.split_once("distcache.toml: |\n").expect("the file within the ConfigMap");
    let text: String = block.lines().map(|line| line.trim_start_matches("    ").to_owned() + "\n").collect();
    let shop = Shop::new();
    let (code, out, err) = run(binary().args(["check", "--offline", "--config"]).arg(shop.write("node.toml", &text)));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("joining through the pods of this pod's namespace with app=distcache"), "{out}");
    assert!(out.contains("closed by a cluster secret"), "{out}");
}
