//! What the application says of a keyspace, and may say anew while it runs.
//!
//! Knows no keys. The invariant: a definition is replaced whole; what is stored stays as far as it fits, and loads under way finish.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use crate::expiry::{Rules, Times};
use crate::source::DynDataSource;
use crate::spec::{ExpiresAt, KeyspaceSettings, KeyspaceSpec};

/// The part of a keyspace that `update_keyspace` replaces.
pub(crate) struct Definition {
    pub(crate) settings: KeyspaceSettings,
    pub(super) source: Arc<dyn DynDataSource>,
    pub(super) expires_at: Option<ExpiresAt>,
    pub(super) warm_keys: Arc<[String]>,
    pub(super) rules: Rules,
    /// Lifetime of hot copies: no longer than the owner may do without hearing of a use.
    pub(super) lease: Duration,
}

impl Definition {
    pub(super) fn of(spec: KeyspaceSpec) -> Self {
        Self { expires_at: spec.expires_at, warm_keys: spec.warm_keys, ..Self::ruled_by(spec.settings, spec.source) }
    }

    fn ruled_by(settings: KeyspaceSettings, source: Arc<dyn DynDataSource>) -> Self {
        let lease = settings.idle_ttl.map_or(settings.lease, |idle| settings.lease.min(idle / 2));
        Self { rules: Rules::of(&settings), lease, settings, source, expires_at: None, warm_keys: Arc::default() }
    }
}

impl Core {
    /// Replaces source and rules; what is stored stays as far as it fits, loads under way finish.
    pub(crate) fn redefine(self: &Arc<Self>, spec: KeyspaceSpec) {
        self.redefined_as(Definition::of(spec));
        self.warm_named_keys();
    }

    /// Replaces the rules that are data, as another node decided.
    pub(crate) fn apply_settings(self: &Arc<Self>, settings: &KeyspaceSettings) {
        let now = self.definition.load_full();
        if now.settings != *settings {
            let (expires_at, warm_keys) = (now.expires_at.clone(), now.warm_keys.clone());
            let ruled = Definition::ruled_by(settings.clone(), now.source.clone());
            self.redefined_as(Definition { expires_at, warm_keys, ..ruled });
        }
    }

    fn redefined_as(self: &Arc<Self>, next: Definition) {
        let rules = next.rules;
        self.store.resize(&next.settings, self.node.clustered);
        self.access.update(&next.settings.guard, &self.node.guards);
        self.node.sweep.notify_one();
        if self.definition.swap(Arc::new(next)).rules != rules {
            let core = self.clone();
            self.node.spawn(async move { core.adopt_rules().await });
        }
    }

    /// Brings what is stored already under other rules. The idle time of all of it begins now: how long it has been unread
    /// was not noted so far.
    async fn adopt_rules(&self) {
        let (rules, now) = (self.definition.load().rules, self.node.clock.now());
        let note_use = |version, times: &mut Times| times.note_use(&rules, version, now);
        self.store.amend_all(note_use, tokio::task::yield_now).await;
        // Those in force by now: of two changes that follow each other closely either pass may end last.
        self.store.set_idle_ttl(self.definition.load().rules.idle_ttl);
    }

    /// Settles its group's guard by its own settings, as the last that were given.
    pub(crate) fn settle_guard(&self) {
        self.access.update(&self.definition.load().settings.guard, &self.node.guards);
    }

    pub(crate) fn settings(&self) -> KeyspaceSettings {
        self.definition.load().settings.clone()
    }
}
