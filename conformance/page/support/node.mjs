// Nodes: the real program, started as a user starts it, on ports that are free, in folders that are removed.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** The longest that a test waits for anything, on a machine that is busy with other things. */
export const PATIENCE_MS = 30_000;

const PROGRAM = process.env.MEGATORRENT;

const environment = (home) => ({ PATH: process.env.PATH, HOME: home, XDG_DATA_HOME: join(home, 'share') });

/** A folder that is removed when the test ends. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'megatorrent-page-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs a command that must succeed; the last object that it wrote. */
export function run(home, ...args) {
  const done = spawnSync(PROGRAM, [...args, '--json'], { cwd: home, env: environment(home), encoding: 'utf8' });
  if (done.status !== 0) {
    throw new Error(`megatorrent ${args.join(' ')}: code ${done.status}\n${done.stdout}${done.stderr}`);
  }
  const lines = done.stdout.trim().split('\n').filter((line) => line !== '');
  return lines.length === 0 ? undefined : JSON.parse(lines.at(-1));
}

/** A `serve` that runs until the test ends. */
export class Node {
  static async start(t, { home = folder(t), args = [], bootstrap } = {}) {
    const given = bootstrap === undefined ? [] : ['-b', bootstrap];
    const own = ['serve', '-d', 'node', '--new', '-P', '0', '-H', '127.0.0.1', '-T', '0', '--json', ...given, ...args];
    const child = spawn(PROGRAM, own, { cwd: home, env: environment(home), stdio: ['ignore', 'pipe', 'pipe'] });
    const node = new Node(home, child);
    t.after(() => node.kill());
    await node.event('ready');
    return node;
  }

  constructor(home, child) {
    this.home = home;
    this.dir = join(home, 'node');
    this.child = child;
    this.said = '';
    this.events = [];
    this.waiting = [];
    child.stderr.on('data', (bytes) => (this.said += bytes));
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.events.push(JSON.parse(line));
      this.waiting.splice(0).forEach((wake) => wake());
    });
    this.ended = new Promise((resolve) => child.on('exit', resolve));
    this.ended.then(() => this.waiting.splice(0).forEach((wake) => wake()));
  }

  /** The first event of that name. */
  async event(name) {
    const deadline = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const found = this.events.find((event) => event.event === name);
      if (found) return found;
      if (this.child.exitCode !== null) throw new Error(`the node ended: ${this.said}`);
      await new Promise((resolve, reject) => {
        this.waiting.push(resolve);
        deadline.addEventListener('abort', () => reject(new Error(`no ${name}: ${this.said}`)), { once: true });
      });
    }
  }

  /** Calls a method through the control socket, as the program's own user. */
  async call(method, params = {}) {
    const socketPath = join(this.dir, 'control.sock');
    const body = JSON.stringify({ method, params });
    const headers = { 'Content-Type': 'application/json', Host: 'node' };
    const answer = await new Promise((resolve, reject) => {
      const request = http.request({ socketPath, path: '/api/rpc', method: 'POST', headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part) => (text += part)).on('end', () => resolve(text));
      });
      request.on('error', reject).end(body);
    });
    const { result, error } = JSON.parse(answer);
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  /** Waits for a job's good end; its result. */
  async job(id) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const { jobs } = await this.call('getJobs');
      const job = jobs.find((it) => it.id === id);
      if (job?.state === 'done') return job.result;
      if (job?.error) throw new Error(`${job.kind}: ${job.error.message}`);
      if (Date.now() > deadline) throw new Error(`a job does not end: ${JSON.stringify(job)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** `http://HOST:PORT` of its API. */
  async origin() {
    const { api } = await this.call('getStatus');
    return `http://${api}`;
  }

  /** A link that logs a browser in, once. */
  async loginLink() {
    const { path } = await this.call('createLoginLink');
    return `${await this.origin()}/${path.replace(/^\//, '')}`;
  }

  /** HOST:PORT for others' `-b`. */
  async address() {
    const { p2p } = await this.event('ready');
    return p2p;
  }

  signal(name) {
    this.child.kill(name);
  }

  async kill() {
    this.child.kill('SIGCONT');
    this.child.kill('SIGKILL');
    await this.ended;
  }
}
