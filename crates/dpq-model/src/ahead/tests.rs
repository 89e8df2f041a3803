//! Tests of reading ahead.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use super::read_ahead;

#[test]
fn batches_come_in_order_and_at_most_two_are_held() {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (held, mut seen) = (AtomicUsize::new(0), vec![]);
        let read = |batch: usize| {
            assert!(held.fetch_add(1, SeqCst) < 2);
            Ok::<_, ()>(batch)
        };
        pool.install(|| {
            read_ahead(0..20, read, |batch| {
                seen.push(batch);
                held.fetch_sub(1, SeqCst);
                Ok(())
            })
        })
        .unwrap();
        assert!(seen.into_iter().eq(0..20));
    }
}

#[test]
fn the_next_batch_is_read_while_one_is_worked_on() {
    let (sender, receiver) = mpsc::channel();
    let read = |batch| Ok::<_, mpsc::RecvTimeoutError>(sender.send(batch).map(|()| batch).unwrap());
    let mut expected = 0..;
    let wait = std::time::Duration::from_secs(60);
    let work = move |batch: usize| {
        if batch == 0 {
            assert_eq!(Some(receiver.recv_timeout(wait)?), expected.next());
        }
        if batch < 2 {
            assert_eq!(Some(receiver.recv_timeout(wait)?), expected.next());
        }
        Ok(())
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| read_ahead(0..3, read, work)).unwrap();
}

#[test]
fn the_first_error_ends_it() {
    let run = |bad_read: usize, bad_work: usize| {
        let read = |batch| if batch == bad_read { Err(("read", batch)) } else { Ok(batch) };
        read_ahead(0..5, read, |batch| if batch == bad_work { Err(("work", batch)) } else { Ok(()) })
    };
    assert_eq!(run(0, 9), Err(("read", 0)));
    assert_eq!(run(3, 9), Err(("read", 3)));
    assert_eq!(run(3, 2), Err(("work", 2)));
    assert_eq!(run(9, 4), Err(("work", 4)));
    assert_eq!(run(9, 9), Ok(()));
}
