//! Commands as transactions: which record carries out which.

use roadstead::store::{Command, Outcome, Sends};
use roadstead_proto::{DeviceId, UserId};

use crate::txn::Txn;

use super::order::Order;
use super::{RecordError, Scope, device, flush, inbox, read_mark, send};

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Done {
    /// For the shard.
    pub outcome: Outcome,
    /// The command registered this device: its inbox is empty.
    pub registered: Option<(UserId, DeviceId)>,
}

/// Carries out one command.
///
/// # Errors
/// [`RecordError::Refused`] if the command is refused; what it wrote has to be taken back.
pub async fn run<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    command: &Command,
) -> Result<Done, RecordError> {
    let outcome = match command {
        Command::OpenDevice(open) => {
            let opened = device::open(scope, txn, open).await?;
            return Ok(Done {
                outcome: Outcome::DeviceOpened(opened.answer),
                registered: opened.is_new.then_some((open.user, open.device)),
            });
        }
        Command::Send(sends) => run_sends(scope, txn, sends).await?,
        Command::ReadInbox(read) => Outcome::Inbox(inbox::read(scope, txn, read).await?),
        Command::Flush(flush) => flush::flush(scope, txn, flush).await?,
        Command::MarkRead(mark) => Outcome::MarkedRead {
            grown: read_mark::mark(scope, txn, mark).await?,
        },
        Command::CheckInbox(check) => {
            let (suspended, grown) = inbox::check(scope, txn, check).await?;
            Outcome::InboxChecked { suspended, grown }
        }
    };
    Ok(Done {
        outcome,
        registered: None,
    })
}

/// All sends in one transaction. A send that is refused has written its answer at most, so the others stand.
async fn run_sends<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    sends: &Sends,
) -> Result<Outcome, RecordError> {
    let sender = (sends.user, sends.device);
    let (mut answers, mut grown) = (Vec::with_capacity(sends.items.len()), Vec::new());
    let mut order = Order::default();
    for item in &sends.items {
        let answer = match order.next(item) {
            Err(error) => Err(error),
            Ok(item) => match send::send(scope, txn, sender, sends.limits, &item).await {
                Ok((answer, growth)) => {
                    grown.extend(growth);
                    answer
                }
                Err(RecordError::Refused(error)) => Err(error),
                Err(error) => return Err(error),
            },
        };
        order.note(item, &answer);
        answers.push(answer);
    }
    Ok(Outcome::Sent { answers, grown })
}
