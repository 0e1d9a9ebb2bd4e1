//! What of a configured value may be shown to people.

/// A value without the passwords of the URLs in it.
pub fn without_passwords(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (login.split_once(':').map_or(login, |(user, _)| user), place),
        None => return value.into(),
    };
    format!("{scheme}://{login}:***@{place}")
}

#[cfg(test)]
mod tests {
    use super::without_passwords;

    #[test]
    fn a_password_is_not_shown_and_nothing_else_is_hidden() {
        assert_eq!(without_passwords("postgres://ada:pa@ss/word@db/shop"), "postgres://ada:***@db/shop");
        assert_eq!(without_passwords("\"nats://ada:pass@nats:4222\""), "\"nats://ada:***@nats:4222\"");
        assert_eq!(without_passwords("[\"nats://a:b@one\", \"nats://c:d@two\"]"), "[\"nats://a:***@two\"]");
        for plain in ["sqlite:shop.db", "5 apples", "nats://nats:4222"] {
            assert_eq!(without_passwords(plain), plain);
        }
    }
}
