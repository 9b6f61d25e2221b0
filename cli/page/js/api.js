// Calls to the node. Every path is relative: the page may lie in a folder of a proxy.
import { changed, state } from './store.js';

const TIMEOUT_MS = 15000;

export class ApiError extends Error {
  constructor(error) {
    super(error.message);
    this.exit = error.data?.exit_code ?? 1;
  }
}

async function post(body) {
  let answer;
  try {
    answer = await fetch('api/rpc', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new ApiError({ message: error.name === 'TimeoutError' ? 'timeout' : 'gone', data: { exit_code: 5 } });
  }
  if (answer.status === 401) {
    state.login = 'out';
    changed();
  }
  const found = await answer.json().catch(() => ({ error: { message: `HTTP ${answer.status}` } }));
  if (!answer.ok) throw new ApiError(found.error ?? { message: `HTTP ${answer.status}` });
  if (state.login !== 'in') {
    state.login = 'in';
    changed();
  }
  return found;
}

export async function call(method, params = {}) {
  const answer = await post({ method, params });
  if (answer.error) throw new ApiError(answer.error);
  return answer.result;
}

// Makes calls together; an answer each, or the error in its place.
export async function batch(calls) {
  const found = new Array(calls.length);
  for (let from = 0; from < calls.length; from += 100) {
    const part = calls.slice(from, from + 100);
    const body = part.map(([method, params], index) => ({ jsonrpc: '2.0', id: index, method, params: params ?? {} }));
    for (const answer of await post(body)) {
      found[from + answer.id] = answer.error ? new ApiError(answer.error) : answer.result;
    }
  }
  return found;
}

// Logs in by a token; whether it was one.
export async function logIn(token) {
  const answer = await fetch('login', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token }),
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  return answer.ok;
}
