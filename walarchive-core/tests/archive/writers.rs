//! Who wrote it: what no trusted writer signed is damaged, however well it is made otherwise.

use bytes::Bytes;
use walarchive_core::archive::{Archive, Keys, ObjectKind};
use walarchive_core::cipher::Cipher;
use walarchive_core::cipher::age::AgeCipher;
use walarchive_core::cipher::writer::WriterKey;
use walarchive_core::error::Kind;
use walarchive_core::storage::Storage;

use crate::recorder::Trouble;
use crate::support::*;

fn again(key: &WriterKey) -> WriterKey {
    key.to_secret_string().parse().unwrap()
}

impl Bench {
    /// The archive of a host that signs with `key`, and believes `trusted`.
    async fn host(&self, key: Option<&WriterKey>, trusted: &[&WriterKey]) -> Archive {
        let trusted_writers = trusted.iter().map(|key| key.writer()).collect();
        self.with_keys(Keys { writer: key.map(again), trusted_writers, ..keys(self.identity.as_ref()) }).await
    }
}

#[test]
fn only_what_trusted_writers_signed_is_believed() {
    run(async {
        for bench in Bench::all().await {
            let (ours, theirs) = (WriterKey::generate().unwrap(), WriterKey::generate().unwrap());
            let writer = bench.host(Some(&ours), &[]).await;
            let reader = bench.host(None, &[&ours]).await;
            let content = segment(SEGMENT, 1);
            push_path(&pusher(&writer, "zstd:1"), &bench.file(SEGMENT, &content)).await.unwrap();
            assert_eq!(fetch_from(&catalog(&reader), SEGMENT).await.unwrap(), content);
            // Who demands nothing reads it, too, and so does an archive that knows nothing of writers.
            assert_eq!(bench.fetch(SEGMENT).await.unwrap(), content);
            for intruder in [bench.archive.clone(), bench.host(Some(&theirs), &[]).await] {
                let planted = bench.file(HISTORY, HISTORY_TEXT);
                push_path(&pusher(&intruder, "zstd:1"), &planted).await.unwrap();
                let error = refused(fetch_from(&catalog(&reader), HISTORY).await, Kind::Damaged, "planted");
                assert!(error.object().is_some() && error.story().contains("sign"), "{error:?}");
                let looked = reader.look_at(&bench.key(HISTORY), ObjectKind::Wal).await;
                refused(looked, Kind::Damaged, "without opening it");
                let push = pusher(&bench.host(Some(&ours), &[&ours]).await, "zstd:1");
                refused(push_path(&push, &planted).await, Kind::Damaged, "what is there was planted");
                bench.store.delete(&bench.key(HISTORY)).await.unwrap();
            }
        }
    });
}

#[test]
fn a_signed_head_before_another_payload_is_damaged() {
    run(async {
        let bench = Bench::in_memory(true).await;
        let ours = WriterKey::generate().unwrap();
        let writer = bench.host(Some(&ours), &[]).await;
        let reader = bench.host(None, &[&ours]).await;
        push_path(&pusher(&writer, "zstd:1"), &bench.file(HISTORY, HISTORY_TEXT)).await.unwrap();
        let key = bench.key(HISTORY);
        let binding = reader.look_at(&key, ObjectKind::Wal).await.unwrap().head.binding.unwrap();
        // Whoever knows the recipients can seal anything, and the binding is there for all to see.
        let recipients = bench.identity.iter().map(|identity| identity.recipient()).collect();
        let mut seal = AgeCipher::new(recipients, vec![]).seal().unwrap();
        let mut object = vec![seal.head(&binding).unwrap()];
        seal.push(b"anything", &mut object).unwrap();
        seal.finish(&mut object).unwrap();
        let object: Bytes = object.concat().into();
        bench.store.set(Trouble::Lies(Box::new(move |_, _| object.clone())));
        let error = refused(reader.prove(&key, None).await, Kind::Damaged, "planted");
        // Its length gives it away first; that is not what signatures are for.
        assert!(error.story().contains("length"), "{error:?}");
        let error = refused(fetch_from(&catalog(&reader), HISTORY).await, Kind::Damaged, "planted");
        assert!(error.story().contains("planted"), "{error:?}");
    });
}

#[test]
fn hosts_that_trust_certain_writers_store_nothing_unsigned() {
    run(async {
        for bench in Bench::all().await {
            let ours = WriterKey::generate().unwrap();
            let reader = bench.host(None, &[&ours]).await;
            let pushed = push_path(&pusher(&reader, "zstd:1"), &bench.file(HISTORY, HISTORY_TEXT)).await;
            let error = refused(pushed, Kind::Usage, "no key to sign with");
            assert!(error.story().contains("writer_key_file"), "{error:?}");
            refused(bench.fetch(HISTORY).await, Kind::Absent, "nothing was stored");
        }
    });
}
