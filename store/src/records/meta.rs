//! `g/…`: what a store is born with. The generation (R3) and the placement key.

use bytes::{BufMut, Bytes};
use roadstead::store::StoreError;

use crate::keys::Keys;
use crate::txn::{Read, Txn};

use super::codec::{Parts, finish, value};
use super::{RecordError, read};

const VERSION: u8 = 1;

/// A store's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Raised by import, restore and change of cluster or engine (R3). Never 0.
    pub generation: u32,
    /// Decides the slots of users, and so the keys: fixed for the life of the store.
    pub placement_key: [u8; 16],
}

/// Reads the identity of a store, or gives it the one proposed if it is new.
///
/// # Errors
/// If it can not be read.
pub async fn load_or_init<T: Txn>(txn: &mut T, proposed: Meta) -> Result<Meta, RecordError> {
    let generation = read(
        txn,
        &Keys::generation(),
        Read::Serializable,
        decode_generation,
    )
    .await?;
    let placement_key = read(txn, &Keys::placement(), Read::Serializable, decode_key).await?;
    match (generation, placement_key) {
        (Some(generation), Some(placement_key)) => Ok(Meta {
            generation,
            placement_key,
        }),
        (None, None) => {
            save_generation(txn, proposed.generation);
            let mut key = value(VERSION, 16);
            key.put_slice(&proposed.placement_key);
            txn.set(&Keys::placement(), finish(key));
            Ok(proposed)
        }
        _ => Err(StoreError::Corrupt.into()),
    }
}

/// Begins another generation: every cursor given out before acknowledges nothing from now on (R3).
pub fn save_generation<T: Txn>(txn: &mut T, generation: u32) {
    let mut bytes = value(VERSION, 4);
    bytes.put_u32(generation);
    let bytes: Bytes = finish(bytes);
    txn.set(&Keys::generation(), bytes);
}

pub(crate) fn decode_generation(value: &[u8]) -> Option<u32> {
    let mut parts = Parts::of(value, VERSION)?;
    let generation = parts.u32()?;
    parts.end(generation).filter(|generation| *generation > 0)
}

fn decode_key(value: &[u8]) -> Option<[u8; 16]> {
    let mut parts = Parts::of(value, VERSION)?;
    let key = parts.take::<16>()?;
    parts.end(key)
}
