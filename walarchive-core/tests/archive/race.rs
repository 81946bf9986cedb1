//! Several hosts push one name at the same moment.

use futures::future::join_all;
use walarchive_core::error::Kind;
use walarchive_core::ops::push::Pushed;

use crate::support::*;

const TASKS: u64 = 16;

/// Pushes `content(n)` from task `n`, all at once.
async fn at_once(
    bench: &Bench,
    text: &str,
    content: impl Fn(u64) -> Vec<u8>,
) -> Vec<walarchive_core::Result<Pushed>> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let dir = bench.files.path().join(task.to_string());
            std::fs::create_dir(&dir).unwrap();
            let path = dir.join(text);
            std::fs::write(&path, content(task)).unwrap();
            let push = bench.pusher(CODECS[task as usize % CODECS.len()]);
            tokio::spawn(async move { push_path(&push, &path).await })
        })
        .collect();
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

#[test]
fn the_same_content_from_all_is_success_for_all() {
    run(async {
        for bench in Bench::all().await {
            let pushed = at_once(&bench, SEGMENT, |_| thin_segment(SEGMENT, 5)).await;
            let new = pushed.iter().filter(|pushed| !pushed.as_ref().unwrap().was_there()).count();
            assert_eq!(new, 1, "exactly one stored it");
            assert!(bench.fetch(SEGMENT).await.unwrap() == thin_segment(SEGMENT, 5));
        }
    });
}

#[test]
fn of_different_contents_exactly_one_is_stored() {
    run(async {
        for bench in Bench::all().await {
            let pushed = at_once(&bench, SEGMENT, |task| thin_segment(SEGMENT, task)).await;
            let stored = bench.fetch(SEGMENT).await.unwrap();
            let mut winners = Vec::new();
            for (task, pushed) in (0..TASKS).zip(pushed) {
                match pushed {
                    Ok(pushed) => {
                        assert!(!pushed.was_there());
                        winners.push(task);
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error:?}"),
                }
            }
            let [winner] = winners[..] else { panic!("the winners are {winners:?}") };
            assert!(stored == thin_segment(SEGMENT, winner), "what is stored is the winner's");
        }
    });
}

#[test]
fn of_partial_segments_all_are_kept() {
    run(async {
        let text = format!("{SEGMENT}.partial");
        for bench in Bench::all().await {
            let pushed = at_once(&bench, &text, |task| thin_segment(SEGMENT, task)).await;
            let mut keys = std::collections::BTreeSet::new();
            for (task, pushed) in (0..TASKS).zip(pushed) {
                let pushed = pushed.unwrap();
                let kind = walarchive_core::archive::ObjectKind::Wal;
                let read = bench.archive.read(&pushed.key, kind, MIB as u64, Vec::new()).await.unwrap();
                assert!(read.0 == thin_segment(SEGMENT, task));
                keys.insert(pushed.key);
            }
            assert_eq!(keys.len() as u64, TASKS);
        }
    });
}
