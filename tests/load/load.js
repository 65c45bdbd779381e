// The load of `make load`: open (arrivals do not wait for answers), as people are.
//
//   TARGET   the shop's address
//   PROFILE  daily or spike
//   SECONDS  how long the whole of it takes; a day is run through in as many
//   PEAK     requests a second at the profile's highest

import http from 'k6/http';

// A weekday's hours as parts of its busiest, from the request log of NASA's web server, July 1995
// (coordinator/backtest/data): the mean of the weekdays up to the 28th.
const DAY = [
  0.42, 0.35, 0.32, 0.26, 0.23, 0.23, 0.27, 0.44, 0.70, 0.84, 0.85, 0.94,
  0.99, 0.99, 1.00, 1.00, 0.95, 0.75, 0.60, 0.53, 0.50, 0.51, 0.50, 0.49,
];
// A calm site that is mentioned somewhere: five times as much within a hundredth of the run, for a fifth of it.
const SPIKE = [[0.3, 0.2], [0.01, 1.0], [0.2, 1.0], [0.05, 0.2], [0.44, 0.2]];

const seconds = Number(__ENV.SECONDS);
const peak = Number(__ENV.PEAK);

function stage(share, level) {
  return { duration: `${Math.max(1, Math.round(seconds * share))}s`, target: Math.max(1, Math.round(peak * level)) };
}

const profiles = {
  daily: { first: DAY[0], stages: DAY.map((level) => stage(1 / DAY.length, level)) },
  spike: { first: SPIKE[0][1], stages: SPIKE.map(([share, level]) => stage(share, level)) },
};
const profile = profiles[__ENV.PROFILE];
if (!profile || !(seconds > 0) || !(peak > 0)) {
  throw new Error(`PROFILE: one of ${Object.keys(profiles).join(', ')}; SECONDS and PEAK: above 0`);
}

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  scenarios: {
    people: {
      executor: 'ramping-arrival-rate',
      startRate: Math.max(1, Math.round(peak * profile.first)),
      timeUnit: '1s',
      // As many as wait for answers at once, were each to wait as long as it can.
      preAllocatedVUs: 50,
      maxVUs: Math.ceil(peak * 5),
      stages: profile.stages,
    },
  },
};

export default function () {
  http.get(__ENV.TARGET, { timeout: '5s' });
}
