//! `distcache secret`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::node::{binary, run};

#[test]
fn a_secret_is_all_there_is_on_standard_output_and_never_the_same() {
    let secret = || {
        let (code, out, err) = run(binary().arg("secret"));
        assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1));
        let secret = STANDARD.decode(out.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(secret.len(), 32);
        secret
    };
    assert_ne!(secret(), secret());
}
