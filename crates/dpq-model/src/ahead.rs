//! Reads a batch while the batch before it is processed.

/// Calls `work` with batch after batch, in order, and reads the next batch meanwhile. At most two
/// batches are in memory.
///
/// `work`, and every `read` but the first, run in threads of rayon, so parallel work inside `work`
/// starts without waking the pool from outside.
///
/// # Errors
/// Returns the first error, in the order of the batches.
pub fn read_ahead<B: Send, T: Send, E: Send>(
    batches: impl IntoIterator<Item = B>,
    read: impl Fn(B) -> Result<T, E> + Sync,
    mut work: impl FnMut(T) -> Result<(), E> + Send,
) -> Result<(), E> {
    let mut batches = batches.into_iter();
    let mut ahead = batches.next().map(&read);
    while let Some(batch) = ahead {
        let (batch, next) = (batch?, batches.next());
        let (worked, read) = rayon::join(|| work(batch), || next.map(&read));
        worked?;
        ahead = read;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
