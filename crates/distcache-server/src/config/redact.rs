//! What of a configured value may be shown to people.

/// A value without the passwords of the URLs in it.
pub fn without_passwords(value: &str) -> String {
    without_parameter(&without_login(value))
}

/// Nor with one that stands as `password=…` in the query of a URL.
fn without_parameter(value: &str) -> String {
    const NAME: &str = "password=";
    let Some((_, query)) = value.split_once('?') else { return value.into() };
    let Some(at) = query.to_ascii_lowercase().find(NAME) else { return value.into() };
    let secret = value.len() - query.len() + at + NAME.len();
    let end = value[secret..].find(['&', '"']).map_or(value.len(), |length| secret + length);
    format!("{}***{}", &value[..secret], &value[end..])
}

fn without_login(value: &str) -> String {
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
        assert_eq!(
            without_passwords("mysql://db/shop?user=a&password=p&x=1"),
            "mysql://db/shop?user=a&password=***&x=1"
        );
        for plain in ["sqlite:shop.db", "5 apples", "nats://nats:4222"] {
            assert_eq!(without_passwords(plain), plain);
        }
    }
}
