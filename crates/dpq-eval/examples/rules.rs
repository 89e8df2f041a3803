//! One ranking, and the figures that different papers would call its mAP:
//!
//! `cargo run -p dpq-eval --example rules`

use dpq_eval::{Evaluator, Labels, MapRule, Ranking, Ties};

fn main() -> Result<(), dpq_eval::Error> {
    // Items 0 to 5, of which 1, 2 and 5 have the class of the query. Short codes tie.
    let gallery = Labels::from_multi_hot(&[0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0], 2)?;
    let query = Labels::from_multi_hot(&[1, 0], 2)?;
    let relevant = query.relevant(0, &gallery)?;
    let scores = [(0, 0.9), (1, 0.9), (2, 0.5), (3, 0.5), (4, 0.5), (5, 0.1)];
    let items = scores.map(|(id, score)| (id, score, relevant[id as usize]));
    let ranking = Ranking::new(items, relevant.iter().filter(|&&is| is).count(), None)?;

    let dpq = MapRule::dpq();
    let rules = [
        dpq,
        MapRule { ties: Ties::ById, ..dpq },
        MapRule { ties: Ties::Maximum, ..dpq },
        MapRule { ties: Ties::Minimum, ..dpq },
        MapRule { cutoff: Some(3), ..dpq },
        MapRule::standard(),
    ];
    let mut evaluator = Evaluator::new(&rules, &[], 1)?;
    evaluator.add(&evaluator.query(&ranking))?;
    for (rule, map) in evaluator.finish()?.map {
        println!("{map:.4}  {rule}");
    }
    Ok(())
}
