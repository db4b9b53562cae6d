//! The simulator's engine against the conformance suite of all engines: as the sole committer, who knows
//! the stamp beforehand, and as one of many, who does not. What happens between transactions is up to the
//! drivers, which the runs of the simulator check.

use std::cell::RefCell;

use roadstead_proto::position::Stamp;
use roadstead_sim::store::image::Image;
use roadstead_sim::store::work::{Lies, Work};
use roadstead_store::conformance;
use roadstead_store::txn::{Engine, Shared, TxnError, ready};

/// One transaction after the other, each committed at once.
struct Serial {
    state: RefCell<(Image, u64)>,
    is_sole: bool,
}

impl Engine for Serial {
    type Txn<'a> = Work<'a>;

    async fn transact<R>(
        &self,
        body: impl AsyncFnOnce(&mut Work<'_>) -> R,
    ) -> (R, Result<Stamp, TxnError>) {
        let mut state = self.state.borrow_mut();
        let (image, commits) = &mut *state;
        *commits += 1;
        let mut stamp = [0; 10];
        stamp[..8].copy_from_slice(&commits.to_be_bytes());
        let mut work = Work::new(image, self.is_sole.then_some(stamp), Lies::default());
        let result = ready(body(&mut work));
        if let Some(error) = work.error() {
            return (result, Err(error));
        }
        let (_, writes) = work.finish();
        image.apply(&writes, &stamp);
        (result, Ok(stamp))
    }
}

fn conforms(is_sole: bool) {
    let state = RefCell::default();
    ready(conformance::all(&Serial { state, is_sole }));
}

#[test]
fn the_engine_of_a_sole_committer_conforms() {
    conforms(true);
}

#[test]
fn the_engine_of_one_among_many_conforms() {
    conforms(false);
}
