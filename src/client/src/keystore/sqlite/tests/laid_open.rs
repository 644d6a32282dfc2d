//! All that a store gives to whoever has the lock.

use rusqlite::types::Value;

use super::{super::*, interrupted::rows};
use crate::keystore::{SessionId, SignedPreKeyRecord};

impl SqliteKeyStore {
    /// Every value of every row, and every secret that the rows hold, opened.
    pub(crate) fn laid_open(&self) -> Vec<Vec<u8>> {
        let values = rows(self).into_iter().flatten();
        let mut found: Vec<Vec<u8>> = values
            .filter_map(|value| match value {
                Value::Blob(bytes) => Some(bytes),
                Value::Text(text) => Some(text.into_bytes()),
                Value::Null | Value::Integer(_) | Value::Real(_) => None,
            })
            .collect();
        let device = self.device().unwrap();
        found.extend(device.identity().to_seed().map(|seed| seed.to_vec()));
        found.push(device.authentication().to_seed().to_vec());
        found.extend(device.account().map(|account| account.to_seed().to_vec()));
        for id in self.ids::<u32>("signed_prekey") {
            if let SignedPreKeyRecord::Held(spk) = self.signed_prekey(SignedPreKeyId(id)).unwrap() {
                found.push(spk.pair.to_secret().to_vec());
            }
        }
        for id in self.ids::<u32>("one_time_prekey") {
            if let OneTimePreKeyRecord::Held(opk) =
                self.one_time_prekey(OneTimePreKeyId(id)).unwrap()
            {
                found.push(opk.to_secret().to_vec());
            }
        }
        for id in self.ids::<[u8; 32]>("session") {
            let opened = self.read(|db| {
                let sql = "SELECT sealed FROM session WHERE id = ?1";
                let blob: Vec<u8> = db.query_row(sql, [id], |row| row.get(0))?;
                db.open(Record::Session(SessionId(id)), &blob)
            });
            found.push(opened.unwrap().to_vec());
        }
        found
    }

    fn ids<T: rusqlite::types::FromSql>(&self, table: &str) -> Vec<T> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare(&format!("SELECT id FROM {table}")).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}
