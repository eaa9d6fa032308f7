//! One pass: whose rows go into it, and whose outputs come out.
//!
//! Promises: a job gets the outputs of its own rows or none; a job that lost its rows, or has others than it says, has no part in the
//! pass and moves nobody's outputs; an output that is not finite costs the job it belongs to and no other.
//! Never: a job's place is worked out twice, once for the inputs and once for the outputs.

use std::ops::Range;

/// The rows of a batch, one after the other, and where each job's stand among them.
#[derive(Debug, Default)]
pub struct Pass {
    /// The inputs of all rows.
    pub inputs: Vec<f32>,
    rows: usize,
    /// Each job's rows; `None` where it has no part.
    places: Vec<Option<Range<usize>>>,
}

impl Pass {
    /// Takes the jobs' inputs, each with how many rows of `width` numbers it says there are.
    pub fn gather<'a>(jobs: impl Iterator<Item = (usize, &'a [f32])>, width: usize) -> Self {
        let mut pass = Self::default();
        for (rows, data) in jobs {
            let is_whole = rows > 0 && rows.checked_mul(width) == Some(data.len());
            pass.places.push(is_whole.then(|| pass.rows..pass.rows + rows));
            if is_whole {
                pass.inputs.extend_from_slice(data);
                pass.rows += rows;
            }
        }
        pass
    }

    /// The outputs of each job, in the order of the jobs; `None` where it has no part in the pass, the pass failed (`outputs` is `None`) or
    /// one of its outputs is not finite.
    pub fn deal<'a>(&'a self, outputs: Option<&'a [f32]>, width: usize) -> impl Iterator<Item = Option<&'a [f32]>> {
        self.places.iter().map(move |place| {
            let place = place.as_ref()?;
            let own = outputs?.get(place.start * width..place.end * width)?;
            own.iter().all(|output| output.is_finite()).then_some(own)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pass that doubles each row's only number.
    fn dealt(jobs: &[(usize, Vec<f32>)]) -> Vec<Option<Vec<f32>>> {
        let pass = Pass::gather(jobs.iter().map(|(rows, data)| (*rows, data.as_slice())), 1);
        let outputs: Vec<f32> = pass.inputs.iter().map(|input| input * 2.0).collect();
        pass.deal(Some(&outputs), 1).map(|own| own.map(<[f32]>::to_vec)).collect()
    }

    #[test]
    fn each_job_gets_its_own_outputs() {
        let all = dealt(&[(1, vec![1.0]), (3, vec![2.0, 3.0, 4.0]), (1, vec![5.0])]);
        assert_eq!(all, [Some(vec![2.0]), Some(vec![4.0, 6.0, 8.0]), Some(vec![10.0])]);
    }

    #[test]
    fn a_job_that_lost_its_rows_has_no_part_and_moves_nobodys_outputs() {
        for lost in [vec![], vec![7.0], vec![7.0, 8.0, 9.0]] {
            let all = dealt(&[(1, vec![1.0]), (2, lost.clone()), (2, vec![3.0, 4.0])]);
            assert_eq!(all, [Some(vec![2.0]), None, Some(vec![6.0, 8.0])], "two rows were said, there are {lost:?}");
        }
    }

    #[test]
    fn an_output_that_is_not_finite_costs_its_own_job() {
        let all = dealt(&[(1, vec![1.0]), (2, vec![2.0, f32::MAX]), (1, vec![4.0])]);
        assert_eq!(all, [Some(vec![2.0]), None, Some(vec![8.0])]);
    }

    #[test]
    fn a_failed_pass_and_too_few_outputs_are_nobodys() {
        let pass = Pass::gather([(1, [1.0].as_slice()), (1, &[2.0])].into_iter(), 1);
        assert!(pass.deal(None, 1).all(|own| own.is_none()));
        assert_eq!(pass.deal(Some(&[2.0]), 1).collect::<Vec<_>>(), [Some([2.0].as_slice()), None]);
    }
}
