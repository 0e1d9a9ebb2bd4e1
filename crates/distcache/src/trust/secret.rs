//! The secret that the nodes of a cluster share, and what is derived from it: ciphers and proofs.
//!
//! Knows no messages and no sockets. The invariants: no secret is ever printed; a key derived for one purpose, one cluster name
//! and one session serves no other; nothing is decrypted before it is authenticated.
//!
//! Keys come by HKDF ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869)), proofs are HMAC-SHA-256, ciphers AES-256-GCM.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::aead::{self, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType, Prk};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Shorter ones can be guessed by whoever has recorded a single datagram.
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 1024;
/// The one spoken under, and those of a rotation that is under way.
const SECRETS_MAX: usize = 8;

/// The secret of a cluster: whoever does not know it is nobody to the nodes that do.
///
/// Under a secret gossip and the exchange of metadata are encrypted and authenticated (AES-256-GCM), and every connection
/// between nodes begins with a proof of it. What peers ask each other afterwards is encrypted by [`Tls`](crate::Tls) only.
///
/// One secret is spoken under, others may be accepted beside it, so that it can be changed while the cluster runs: first let
/// every node [accept](Self::accepting) the new one, then let every node speak under it, then drop the old one. See
/// [`Engine::rotate_cluster_secret`](crate::Engine::rotate_cluster_secret).
///
/// ```
/// use distcache::ClusterSecret;
///
/// let old = "an-old-secret-of-32-random-bytes";
/// let secret = ClusterSecret::new("one-new-secret-of-32-random-byte")?.accepting(old)?;
/// assert_eq!(format!("{secret:?}"), "ClusterSecret(2 keys, redacted)");
/// # Ok::<(), distcache::SecretError>(())
/// ```
#[derive(Clone)]
pub struct ClusterSecret {
    /// The first is spoken under.
    secrets: Vec<Box<[u8]>>,
}

/// Why something is no cluster secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Too short or too long.
    #[error("a cluster secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, not {len}")]
    Length {
        /// Its bytes.
        len: usize,
    },
    /// Nothing in it, or too much.
    #[error("a cluster has 1 to {SECRETS_MAX} secrets at a time, not {count}")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// The file cannot be read.
    #[error("cannot read the cluster secret in {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

impl ClusterSecret {
    /// A secret of 16 to 1024 bytes, best 32 random ones.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        Ok(Self { secrets: vec![checked(secret.as_ref())?] })
    }

    /// Accepts another secret, without speaking under it.
    pub fn accepting(mut self, secret: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        self.secrets.push(checked(secret.as_ref())?);
        match self.secrets.len() {
            count if count > SECRETS_MAX => Err(SecretError::Count { count }),
            _ => Ok(self),
        }
    }

    /// Reads a file of one secret a line: the first is spoken under, the others are accepted. White space around a secret does
    /// not count.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        let path = path.as_ref();
        let unreadable = |error| SecretError::Unreadable { path: path.into(), error };
        Self::of_lines(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    fn of_lines(text: &str) -> Result<Self, SecretError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = Self::new(lines.next().ok_or(SecretError::Count { count: 0 })?)?;
        lines.try_fold(first, Self::accepting)
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecret({} keys, redacted)", self.secrets.len())
    }
}

fn checked(secret: &[u8]) -> Result<Box<[u8]>, SecretError> {
    match secret.len() {
        SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(secret.into()),
        len => Err(SecretError::Length { len }),
    }
}

/// Says which key was used without telling anything of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct KeyId(pub(crate) [u8; 4]);

/// The keys of one cluster, replaced whole when its secret changes.
pub(crate) struct KeyRing {
    cluster_name: String,
    keys: ArcSwap<Vec<Arc<Key>>>,
}

impl KeyRing {
    pub(crate) fn new(secret: &ClusterSecret, cluster_name: &str) -> Self {
        let keys = ArcSwap::from_pointee(derived(secret, cluster_name));
        Self { cluster_name: cluster_name.into(), keys }
    }

    pub(crate) fn replace(&self, secret: &ClusterSecret) {
        self.keys.store(Arc::new(derived(secret, &self.cluster_name)));
    }

    /// The key that this node speaks under.
    pub(crate) fn spoken(&self) -> Arc<Key> {
        self.keys.load()[0].clone()
    }

    pub(crate) fn find(&self, id: KeyId) -> Option<Arc<Key>> {
        self.keys.load().iter().find(|key| key.id == id).cloned()
    }
}

fn derived(secret: &ClusterSecret, cluster_name: &str) -> Vec<Arc<Key>> {
    secret.secrets.iter().map(|secret| Arc::new(Key::derive(secret, cluster_name))).collect()
}

/// One secret under one cluster name.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    root: Prk,
}

impl Key {
    fn derive(secret: &[u8], cluster_name: &str) -> Self {
        let salt = [b"distcache 1 ", cluster_name.as_bytes()].concat();
        let root = hkdf::Salt::new(HKDF_SHA256, &salt).extract(secret);
        Self { id: KeyId(expand(&root, &[b"id"])), root }
    }

    /// Shows that whoever made it knows the secret. `role` keeps one side from answering with what the other has said.
    pub(crate) fn prove(&self, role: &str, transcript: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.proof_key(role), transcript);
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Takes the same time whether or not it is right.
    pub(crate) fn is_proof(&self, proof: &[u8; 32], role: &str, transcript: &[u8]) -> bool {
        hmac::verify(&self.proof_key(role), transcript, proof).is_ok()
    }

    fn proof_key(&self, role: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &expand::<32>(&self.root, &[b"proof ", role.as_bytes()]))
    }

    /// A cipher for one direction of one `session`, which nobody may use twice.
    pub(crate) fn cipher(&self, purpose: &str, session: &[u8]) -> Cipher {
        let bytes = expand::<32>(&self.root, &[purpose.as_bytes(), b" ", session]);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("the key has the length that the algorithm names");
        Cipher(LessSafeKey::new(key))
    }
}

fn expand<const BYTES: usize>(root: &Prk, info: &[&[u8]]) -> [u8; BYTES] {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut bytes = [0; BYTES];
    let filled = root.expand(info, Length(BYTES)).and_then(|okm| okm.fill(&mut bytes));
    filled.expect("HKDF gives up to 8 KiB, and less is asked");
    bytes
}

/// Encrypts and authenticates messages, each under a sequence number of its own.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    /// Bytes that a sealed message is longer.
    pub(crate) const OVERHEAD_BYTES: usize = 16;

    /// Seals what stands in `buffer` from `start` on. `context` is authenticated with it. No sequence number may come twice.
    pub(crate) fn seal(&self, sequence: u64, context: &[u8], buffer: &mut Vec<u8>, start: usize) {
        let sealed = self.0.seal_in_place_separate_tag(nonce(sequence), Aad::from(context), &mut buffer[start..]);
        buffer.extend_from_slice(sealed.expect("no message has 64 GiB").as_ref());
    }

    /// Opens in place; `None` if it is not what was sealed, under this key, number and context.
    pub(crate) fn open<'a>(&self, sequence: u64, context: &[u8], sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(nonce(sequence), Aad::from(context), sealed).ok()
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[aead::NONCE_LEN - size_of::<u64>()..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Bytes that nobody can foresee, from the operating system.
pub(crate) fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    // Without them everything that follows would be a lie.
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random numbers");
    bytes
}

#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "an old secret of a cluster";
    const NEW: &str = "a new secret of a cluster";

    fn key(secret: &str, cluster_name: &str) -> Key {
        Key::derive(secret.as_bytes(), cluster_name)
    }

    #[test]
    fn a_secret_is_long_enough_and_never_printed() {
        assert!(matches!(ClusterSecret::new("short").unwrap_err(), SecretError::Length { len: 5 }));
        assert!(ClusterSecret::new([0; SECRET_BYTES_MAX + 1]).is_err());
        let secret = ClusterSecret::new(OLD).unwrap().accepting(NEW).unwrap();
        let shown = format!("{secret:?}");
        assert!(!shown.contains("secret of") && shown.contains("2 keys"), "{shown}");
    }

    #[test]
    fn a_file_names_what_is_spoken_and_what_is_accepted() {
        let path = std::env::temp_dir().join(format!("distcache-secret-{}", std::process::id()));
        std::fs::write(&path, format!("\n  {NEW}\n\n{OLD}\r\n")).unwrap();
        let ring = KeyRing::new(&ClusterSecret::from_file(&path).unwrap(), "shop");
        assert_eq!(ring.spoken().id, key(NEW, "shop").id);
        assert!(ring.find(key(OLD, "shop").id).is_some());
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(ClusterSecret::from_file(&path).unwrap_err(), SecretError::Count { count: 0 }));
        std::fs::remove_file(&path).unwrap();
        let error = ClusterSecret::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("distcache-secret"), "{error}");
    }

    #[test]
    fn a_proof_holds_for_its_secret_cluster_role_and_transcript_only() {
        let proof = key(OLD, "shop").prove("asks", b"all that was said");
        assert!(key(OLD, "shop").is_proof(&proof, "asks", b"all that was said"));
        assert!(!key(NEW, "shop").is_proof(&proof, "asks", b"all that was said"));
        assert!(!key(OLD, "bank").is_proof(&proof, "asks", b"all that was said"));
        assert!(!key(OLD, "shop").is_proof(&proof, "answers", b"all that was said"));
        assert!(!key(OLD, "shop").is_proof(&proof, "asks", b"something else"));
    }

    #[test]
    fn a_rotation_replaces_the_keys_of_everybody_who_holds_the_ring() {
        let ring = KeyRing::new(&ClusterSecret::new(OLD).unwrap(), "shop");
        let old = ring.spoken().id;
        ring.replace(&ClusterSecret::new(NEW).unwrap());
        assert_eq!(ring.spoken().id, key(NEW, "shop").id);
        assert!(ring.find(old).is_none());
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_under_the_same_key_number_and_context_only(message: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let cipher = key(OLD, "shop").cipher("test", b"session");
            let mut sealed = message.clone();
            cipher.seal(7, b"context", &mut sealed, 0);
            prop_assert_eq!(sealed.len(), message.len() + Cipher::OVERHEAD_BYTES);
            prop_assert_eq!(cipher.open(7, b"context", &mut sealed.clone()).map(|opened| opened.to_vec()), Some(message));
            prop_assert!(cipher.open(8, b"context", &mut sealed.clone()).is_none());
            prop_assert!(cipher.open(7, b"other", &mut sealed.clone()).is_none());
            let other = key(OLD, "shop").cipher("test", b"other session");
            prop_assert!(other.open(7, b"context", &mut sealed.clone()).is_none());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(cipher.open(7, b"context", &mut sealed).is_none());
        }
    }
}
