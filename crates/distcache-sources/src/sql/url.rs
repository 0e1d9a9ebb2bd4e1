//! The parameters of a database's URL, read before its client reads them.
//!
//! The invariant: a parameter that the client would pass over, or log with its value, is refused.

#[cfg(feature = "postgres")]
pub(super) const POSTGRES_PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// But for the time zone: times are written in UTC.
#[cfg(feature = "mysql")]
pub(super) const MYSQL_PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "charset",
    "collation",
    "statement-cache-capacity",
    "socket",
];

/// The first parameter of the URL that is none of these.
pub(super) fn unknown_parameter<'u>(url: &'u str, known: &[&str]) -> Option<&'u str> {
    let (_, parameters) = url.split_once('?')?;
    let mut names = parameters.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default());
    names.find(|name| !known.contains(name) && !name.starts_with("options["))
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_no_client_reads_is_found() {
        let unknown = |url| unknown_parameter(url, POSTGRES_PARAMETERS);
        assert_eq!(unknown("postgres://db/shop?sslmode=require&passwd=x"), Some("passwd"));
        assert_eq!(unknown("postgres://db/shop?options[search_path]=shop"), None);
        assert_eq!(unknown("postgres://db/shop"), None);
    }
}
