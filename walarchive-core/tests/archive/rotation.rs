//! What is stored, given to other readers.

use walarchive_core::archive::{Archive, Keys, NewHeads, ObjectKind, Rotation};
use walarchive_core::cipher::age::Identity;
use walarchive_core::cipher::writer::WriterKey;
use walarchive_core::error::Kind;

use crate::recorder::Trouble;
use crate::support::*;

const ALL: Rotation = Rotation { sign: false, dry_run: false };

/// The archive with the key of today's reader, and the recipients of tomorrow's.
async fn rotating(bench: &Bench, to: &[&Identity]) -> Archive {
    let recipients = to.iter().map(|identity| identity.recipient()).collect();
    bench.with_keys(Keys { recipients, ..keys(bench.identity.as_ref()) }).await
}

#[test]
fn a_rotated_object_is_for_its_new_readers_alone() {
    run(async {
        for bench in [Bench::in_memory(true).await, Bench::in_directory(true).await] {
            let content = segment(SEGMENT, 1);
            bench.push("zstd:1", SEGMENT, &content).await.unwrap();
            let key = bench.key(SEGMENT);
            let before = bench.stored(&key).await;
            let new = Identity::generate().unwrap();
            let archive = rotating(&bench, &[&new]).await;
            let looked = archive.rotate(&key, Rotation { dry_run: true, ..ALL }).await.unwrap();
            assert_eq!((looked.bytes, bench.stored(&key).await), (before.len() as u64, before.clone()));
            assert_eq!(archive.rotate(&key, ALL).await.unwrap().bytes, before.len() as u64);
            let after = bench.stored(&key).await;
            let head = archive.look_at(&key, ObjectKind::Wal).await.unwrap().head.len;
            assert!(after[head..] == before[head..] && after[..head] != before[..head]);
            refused(bench.fetch(SEGMENT).await, Kind::Key, "the old reader");
            let reader = bench.with_keys(keys(Some(&new))).await;
            assert_eq!(fetch_from(&catalog(&reader), SEGMENT).await.unwrap(), content);
            // It is as it should be now, for whoever can tell.
            assert_eq!(reader.rotate(&key, ALL).await.unwrap().bytes, 0);
            // The same content pushed again is the same segment.
            let pushed = push_path(&pusher(&reader, "zstd:1"), &bench.file(SEGMENT, &content)).await;
            pushed.unwrap();
        }
    });
}

#[test]
fn more_readers_make_a_longer_head_and_everything_still_holds() {
    run(async {
        let bench = Bench::in_directory(true).await;
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        let key = bench.key(SEGMENT);
        let before = bench.stored(&key).await.len();
        let others = [(); 3].map(|()| Identity::generate().unwrap());
        let archive = rotating(&bench, &[&others[0], &others[1], &others[2]]).await;
        archive.rotate(&key, ALL).await.unwrap();
        assert!(bench.stored(&key).await.len() > before);
        for reader in &others {
            let reader = bench.with_keys(keys(Some(reader))).await;
            reader.prove(&key, None).await.unwrap();
            fetch_from(&catalog(&reader), SEGMENT).await.unwrap();
        }
    });
}

#[test]
fn what_is_damaged_is_not_rotated() {
    run(async {
        let bench = Bench::in_directory(true).await;
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        let key = bench.key(SEGMENT);
        let mut bad = bench.stored(&key).await.to_vec();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let archive = rotating(&bench, &[&Identity::generate().unwrap()]).await;
        let given = bad.clone();
        bench.store.set(Trouble::Lies(Box::new(move |_, _| given.clone().into())));
        refused(archive.rotate(&key, ALL).await, Kind::Damaged, "a flipped bit");
        bench.store.set(Trouble::None);
        bench.fetch(SEGMENT).await.unwrap();
    });
}

#[test]
fn rotation_signs_what_it_is_told_to_and_nothing_of_others() {
    run(async {
        let bench = Bench::in_memory(true).await;
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        let key = bench.key(SEGMENT);
        let [ours, theirs] = [(); 2].map(|()| WriterKey::generate().unwrap());
        let host = async |key: &WriterKey| {
            let writer = Some(key.to_secret_string().parse().unwrap());
            let trusted_writers = vec![key.writer()];
            bench.with_keys(Keys { writer, trusted_writers, ..keys(bench.identity.as_ref()) }).await
        };
        let archive = host(&ours).await;
        refused(archive.rotate(&key, ALL).await, Kind::Damaged, "nobody signed it");
        let sign = Rotation { sign: true, ..ALL };
        assert!(archive.rotate(&key, sign).await.unwrap().signed);
        fetch_from(&catalog(&archive), SEGMENT).await.unwrap();
        assert_eq!(archive.rotate(&key, sign).await.unwrap(), NewHeads::default());
        refused(host(&theirs).await.rotate(&key, sign).await, Kind::Damaged, "somebody else's");
        let writer = Some(theirs.to_secret_string().parse().unwrap());
        let trusted_writers = vec![ours.writer()];
        let nobodys = Keys { writer, trusted_writers, ..keys(bench.identity.as_ref()) };
        refused(bench.with_keys(nobodys).await.rotate(&key, sign).await, Kind::Usage, "nobody trusts it");
    });
}

/// What says that it replaced an object, and did not, is found out.
#[test]
fn a_store_that_keeps_the_old_object_is_told() {
    run(async {
        let bench = Bench::in_directory(true).await;
        bench.push("zstd:1", SEGMENT, &segment(SEGMENT, 1)).await.unwrap();
        let key = bench.key(SEGMENT);
        let old = bench.stored(&key).await;
        let archive = rotating(&bench, &[&Identity::generate().unwrap()]).await;
        bench.store.set(Trouble::Lies(Box::new(move |_, _| old.clone())));
        let error = refused(archive.rotate(&key, ALL).await, Kind::Conflict, "the old one is there");
        assert!(error.story().contains("copy"), "{error:?}");
    });
}
