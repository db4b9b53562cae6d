//! What the process does about the age of what its store holds (R25).

use roadstead_proto::Position;
use roadstead_store::keys::Keys;
use roadstead_store::records::expiry::{self, Budget, Progress};
use roadstead_store::records::minutes::{self, Doubt};
use roadstead_store::txn::ready;

use super::{Step, Store, Tap};

impl Store {
    /// Stamps a minute (R25); nothing if the store can not now.
    pub fn stamp_minute(&mut self, step: &mut Step<'_>, doubt: &mut Doubt, minute: u32) {
        let agreed = doubt.confirms(minute);
        let stamped = self.admin(|scope, work| ready(minutes::stamp(scope, work, minute, agreed)));
        let Some(stamped) = stamped else { return };
        doubt.note(minute, stamped);
        let value = self.base().image.get(&Keys::minute(minute));
        let at = value.and_then(|value| Position::from_slice(value.get(1..17)?));
        step.tap(Tap::Stamped { minute, at });
    }

    /// Begins the expiry job (R25); `None` if the store can not now.
    pub fn begin_expiry(&mut self, step: &mut Step<'_>) -> Option<Progress> {
        let begun = self.admin(|scope, work| ready(expiry::begin(scope, work, None)))?;
        step.tap(Tap::ExpiryBegun);
        Some(begun)
    }

    /// Does a piece of the expiry job; `None` if the store can not now.
    pub fn step_expiry(&mut self, step: &mut Step<'_>, progress: Progress) -> Option<Progress> {
        let progress = self
            .admin(|scope, work| ready(expiry::step(scope, work, progress, Budget::OF_A_BATCH)))?;
        step.tap(Tap::Expired(self.base().taken.clone()));
        if progress.is_done() {
            step.tap(Tap::ExpiryDone);
        }
        Some(progress)
    }
}
