//! The history of a replica in memory, by a clock that is set by hand.
//!
//! | file | its story |
//! | --- | --- |
//! | `hour` | an hour and more of commits: at any moment all that is promised is there, and no more |
//! | `interrupted` | requests fail and processes die at any moment |
//! | `brief` | processes that live for a second |
//! | `calendar` | restore points by the calendar, for years: each is there, and nothing else |
//! | `thinned` | any files and any calendar: what is kept leads to all points, and costs least |
//! | `clocks` | clocks are wrong, and are set |
//! | `packs` | what readers find beside large files |
//! | `requests` | what is asked of the store, and what is not |
//! | `world` | the replica, what it should hold, and a restore of its own |

mod brief;
mod calendar;
mod clocks;
mod hour;
mod interrupted;
mod packs;
mod requests;
mod thinned;
mod world;
