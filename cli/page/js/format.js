// Figures and times, everywhere in one way: units as the command line has them, three figures.
import { S } from './strings.js';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const THIN = '\u202f';

export function count(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

function parts(bytes) {
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = unit === 0 || value >= 99.95 ? String(Math.round(value)) : value.toFixed(1);
  return [text, UNITS[unit]];
}

export function bytes(number) {
  if (!number) return '0';
  return parts(number).join('\u00a0');
}

// A rate as figure and unit.
export function rate(number) {
  if (number < 1024 * 1024 && number > 0) {
    const [text, unit] = parts(number);
    return [text, `${unit}/s`];
  }
  const mib = number / 1048576;
  return [mib === 0 ? '0' : mib >= 99.95 ? String(Math.round(mib)) : mib.toFixed(1), 'MiB/s'];
}

export function rateText(number) {
  return rate(number).join('\u00a0');
}

export function percent(part, all) {
  // What is not whole is not called so.
  return all > 0 ? Math.min(part < all ? 99 : 100, Math.floor((part / all) * 100)) : 0;
}

const two = (number) => String(number).padStart(2, '0');

export function clock(ms, seconds = false) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ''}`;
}

// A day or, of today, the time.
export function when(ms, now = Date.now()) {
  if (!ms) return '';
  const at = new Date(ms);
  const today = new Date(now);
  const midnight = new Date(today.getFullYear(), today.getMonth(), today.getDate()).getTime();
  if (ms >= midnight) return now - ms < 60000 && now >= ms ? S.now : clock(ms);
  if (ms >= midnight - 86400000) return S.yesterday;
  const day = `${at.getDate()} ${S.months[at.getMonth()]}`;
  return at.getFullYear() === today.getFullYear() ? day : `${day} ${at.getFullYear()}`;
}

// For a sentence: "today, 14:02", "12 Nov".
export function day(ms) {
  if (!ms) return '';
  const text = when(ms);
  if (text === S.now) return S.today(clock(ms));
  return text.includes(':') ? S.today(text) : text;
}

// A length of time, in one unit.
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return S.seconds(seconds);
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return S.minutes(minutes);
  const hours = Math.round(minutes / 60);
  if (hours < 48) return S.hours(hours);
  return S.days(Math.round(hours / 24));
}

// A channel's key in groups of four, as far as a human compares it.
export function figures(key) {
  return `${key.slice(0, 4)} ${key.slice(4, 8)}`;
}

const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

// Text from others: what would change how the rest is read is shown as a box.
export function plain(text) {
  return String(text).replace(CONTROL, '\u25a1');
}
