// A stand-in for a node: the page's files come from a real one, what the API says is invented, so that a test can show the page a
// thousand channels, titles that somebody hostile wrote, or a mode that this version has not got.

import http from 'node:http';

/** The stand-in of a node, until the test ends. */
export class StandIn {
  /** `real`: the origin whose page it shows. `answers`: by method, a value or what makes it of the parameters. */
  static async start(t, { real, answers, mode = { mode: 'direct' } }) {
    const standIn = new StandIn(real, answers, mode);
    await new Promise((resolve) => standIn.server.listen(0, '127.0.0.1', resolve));
    t.after(() => standIn.stop());
    return standIn;
  }

  constructor(real, answers, beat) {
    Object.assign(this, { real, answers, beat, readers: new Set(), calls: [], number: 1 });
    this.server = http.createServer((request, response) => this.#serve(request, response));
    this.beating = setInterval(() => this.#beat(), 5000);
  }

  get origin() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** Tells all readers of an event. */
  tell(name, data) {
    this.number += 1;
    const text = `id: ${this.number}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
    this.readers.forEach((reader) => reader.write(text));
  }

  /** Shows another mode, at once. */
  become(beat) {
    this.beat = beat;
    this.#beat();
  }

  stop() {
    clearInterval(this.beating);
    this.server.closeAllConnections();
    this.server.close();
  }

  #beat() {
    this.readers.forEach((reader) => reader.write(`event: beat\ndata: ${JSON.stringify(this.beat)}\n\n`));
  }

  #serve(request, response) {
    const { pathname } = new URL(request.url, this.origin);
    if (pathname === '/api/events') return this.#stream(response);
    if (pathname === '/api/rpc') return this.#call(request, response);
    const passed = http.request(`${this.real}${request.url}`, { method: request.method }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    return request.pipe(passed);
  }

  #stream(response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    this.readers.add(response);
    response.on('close', () => this.readers.delete(response));
    response.write(`event: beat\ndata: ${JSON.stringify(this.beat)}\n\n`);
  }

  #call(request, response) {
    let text = '';
    request.setEncoding('utf8').on('data', (part) => (text += part));
    request.on('end', () => {
      const body = JSON.parse(text);
      const answers = [body].flat().map((call) => this.#answer(call));
      response.writeHead(200, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify(Array.isArray(body) ? answers : answers[0]));
    });
  }

  #answer({ jsonrpc, id, method, params = {} }) {
    this.calls.push({ method, params });
    const known = this.answers[method];
    const head = jsonrpc === undefined ? {} : { jsonrpc, id };
    if (known === undefined) return { ...head, error: { code: -32601, message: `no ${method}`, data: { exit_code: 1 } } };
    return { ...head, result: typeof known === 'function' ? known(params) : known };
  }
}
