//! A URL as errors, logs and `Debug` show it.
//!
//! The invariant: a password in a URL is in no text that leaves this module.

pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, parameters)| (rest, Some(parameters)));
    // A question mark or an @ may stand in a password that nobody has encoded.
    if parameters.is_some_and(|parameters| parameters.contains('@')) {
        return format!("{scheme}://***");
    }
    let rest = match rest.rsplit_once('@') {
        Some((login, place)) => format!("{}:***@{place}", login.split_once(':').map_or(login, |(user, _)| user)),
        None => rest.into(),
    };
    let Some(parameters) = parameters else { return format!("{scheme}://{rest}") };
    let shown: Vec<_> = parameters.split('&').map(shown_parameter).collect();
    format!("{scheme}://{rest}?{}", shown.join("&"))
}

fn shown_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}=***"),
        _ => parameter.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = without_password;
        assert_eq!(shown("postgres://ada:pa@ss/word@db:5432/shop"), "postgres://ada:***@db:5432/shop");
        assert_eq!(shown("postgres://ada:pa?ss@db/shop"), "postgres://***");
        assert_eq!(shown("redis://:pass@db/0"), "redis://:***@db/0");
        assert_eq!(
            shown("postgres://db/shop?user=ada&password=p&port=1"),
            "postgres://db/shop?user=ada&password=***&port=1"
        );
        assert_eq!(shown("sqlite:shop.db"), "sqlite:shop.db");
        assert_eq!(shown("sqlite://shop.db?mode=ro"), "sqlite://shop.db?mode=ro");
    }
}
