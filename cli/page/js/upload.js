// Bytes that were dropped on the page, on their way to the node: a browser gives no paths, so they are copied there, piece by piece.
import { ApiError, call } from './api.js';
import { changed } from './store.js';
import { S } from './strings.js';

const FILES_MAX = 10000;

// What was dropped: files with their paths, folders looked through.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ path: file.name, file }));
  const found = [];
  const walk = async (entry, under) => {
    if (entry.name.startsWith('.') || found.length >= FILES_MAX) return;
    const path = under ? `${under}/${entry.name}` : entry.name;
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ path, file });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (part.length === 0) return;
      for (const one of part) await walk(one, path);
    }
  };
  // One folder alone is the channel's own: its name is not a part of the paths.
  if (entries.length === 1 && entries[0].isDirectory) {
    const reader = entries[0].createReader();
    for (;;) {
      const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (part.length === 0) break;
      for (const one of part) await walk(one, '');
    }
    found.name = entries[0].name;
  } else {
    for (const entry of entries) await walk(entry, '');
  }
  return found;
}

// Files that were chosen in the browser's own dialog.
export function chosen(files) {
  const found = [...files].filter((file) => !file.name.startsWith('.')).map((file) => {
    const path = file.webkitRelativePath || file.name;
    return { path: file.webkitRelativePath ? path.split('/').slice(1).join('/') : path, file };
  });
  const first = files[0]?.webkitRelativePath;
  if (first) found.name = first.split('/')[0];
  return found;
}

function base64(piece) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => reject(new ApiError({ message: S.cannotRead }));
    reader.readAsDataURL(piece);
  });
}

// Sends files to a folder of the node's. `upload` says how far it is.
export class Upload {
  constructor(files) {
    this.files = files;
    this.size = files.reduce((sum, { file }) => sum + file.size, 0);
    this.sent = 0;
    this.isOver = false;
    this.isCancelled = false;
    this.error = null;
  }

  async run() {
    try {
      const made = await call('createUpload');
      this.upload = made.upload;
      this.folder = made.folder;
      if (made.free_bytes !== null && made.free_bytes < this.size) throw new ApiError({ message: S.noRoomForUpload });
      for (const { path, file } of this.files) await this.send(path, file, made.piece_bytes);
      this.isOver = true;
    } catch (error) {
      this.error = S.errors[error.message] ?? error.message;
      await this.remove();
    }
    changed();
    return this.isOver;
  }

  async send(path, file, pieceBytes) {
    let offset = 0;
    do {
      if (this.isCancelled) throw new ApiError({ message: S.cancelled });
      const piece = file.slice(offset, offset + pieceBytes);
      const data = piece.size > 0 ? await base64(piece) : '';
      await call('writeUpload', { upload: this.upload, path, offset, data });
      offset += piece.size;
      this.sent += piece.size;
      changed();
    } while (offset < file.size);
  }

  async cancel() {
    this.isCancelled = true;
    if (this.isOver) await this.remove();
  }

  async remove() {
    if (this.upload) await call('removeUpload', { upload: this.upload }).catch(() => {});
    this.upload = null;
  }
}
