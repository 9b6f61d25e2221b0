// Time that nobody sets. `performance.now` stands still while a computer sleeps in some browsers, so a jump of the wall clock counts too.
let offset = 0;
let lastWall = Date.now();
let lastMono = performance.now();

export function monotonic() {
  const wall = Date.now();
  const mono = performance.now();
  const jump = wall - lastWall - (mono - lastMono);
  if (jump > 2000) offset += jump;
  lastWall = wall;
  lastMono = mono;
  return mono + offset;
}
