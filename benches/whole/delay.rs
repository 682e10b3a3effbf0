//! The group `delay`: pages that take their time, asked for one after the other and four at a time.

use std::time::Duration;

use crate::cli::Sizes;
use crate::directory::{Directory, Shape};
use crate::floor;
use crate::home::Home;
use crate::server::Server;
use crate::sync::expect;
use crate::table::Figures;

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    let server = Server::start([Directory::new(sizes.delay_users, Shape::Usual)]);
    for &delay in &sizes.delays {
        server.delay(delay);
        for _ in 0..sizes.rounds {
            round(&server, sizes.delay_users, delay, figures);
        }
    }
}

fn round(server: &Server, users: usize, delay: Duration, figures: &mut Figures) {
    let ms = delay.as_millis();
    let home = Home::new(&server.url, 1, "defaults.concurrency = 4\n");
    server.requests();
    let cost = floor::reading(home.path(), &server.url, users, 0);
    let floor = cost.wall_seconds;
    let case = format!("{ms} ms a page: floor, one at a time");
    figures.add(&case, users, cost, Some(floor), 0, server.requests());

    let (cost, row) = home.sync("full");
    expect(&row, "full", users, [users, 0, 0]);
    let mut add = |case: &str, cost| {
        let case = format!("{ms} ms a page: {case}");
        let (bytes, requests) = (home.mirror_bytes(), server.requests());
        figures.add(&case, users, cost, Some(floor), bytes, requests);
    };
    add("first full sync, 4 at a time", cost);
    let mut walls = [0.0; 2];
    for (wall, concurrency) in walls.iter_mut().zip([1, 4]) {
        home.configure(&format!("defaults.concurrency = {concurrency}\n"));
        let (cost, row) = home.sync("full");
        expect(&row, "full", users, [0, 0, 0]);
        add(&format!("unchanged, {concurrency} at a time"), cost);
        *wall = cost.wall_seconds;
    }
    let [one, four] = walls;
    // Where reading is free there is nothing to gain.
    let goal = (delay >= Duration::from_millis(100)).then_some(0.35);
    let what = format!("{ms} ms a page: unchanged, wall of 4 at a time over 1");
    figures.find(&what, users, four / one, "×", goal);
}
