// What the pack uses of ComfyUI's front end. The host serves these modules; this file is for the type checker alone.

declare module "*/scripts/app.js" {
  export const app: any;
}
declare module "*/scripts/api.js" {
  export const api: any;
}
