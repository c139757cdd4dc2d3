// Every image that is built here: `make images` for Kubernetes, .github/workflows/release.yml for a release.
variable "IMAGES" { default = "shop" }    // what is before the image's name: ghcr.io/OWNER/REPOSITORY in a release
variable "TAG" { default = "dev" }
variable "REVISION" { default = "" }      // the commit
variable "SOURCE" { default = "" }        // the repository's address
variable "SOURCE_DATE_EPOCH" { default = "" }  // the commit's time: the same commit gets the same labels and times
variable "BY_DIGEST" { default = "" }     // if set: pushed without a tag, as one platform's part of an image

group "default" {
  targets = ["service", "one"]
}

target "labelled" {
  labels = {
    "org.opencontainers.image.version"  = TAG
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.source"   = SOURCE
    "org.opencontainers.image.created"  = SOURCE_DATE_EPOCH == "" ? "" : timeadd("1970-01-01T00:00:00Z", "${SOURCE_DATE_EPOCH}s")
  }
}

function "tags" {
  params = [name]
  result = BY_DIGEST == "" ? ["${IMAGES}/${name}:${TAG}"] : []
}

function "output" {
  params = [name]
  result = BY_DIGEST == "" ? [] : ["type=image,name=${IMAGES}/${name},push-by-digest=true,name-canonical=true,push=true,rewrite-timestamp=true"]
}

target "service" {
  inherits = ["labelled"]
  matrix   = { service = ["auth", "user", "product", "order", "payment"] }
  name     = "${service}-service"
  target   = "service"
  args     = { SERVICE = service }
  tags     = tags("${service}-service")
  output   = output("${service}-service")
}

target "one" {
  inherits = ["labelled"]
  matrix   = { stage = ["migrations", "gateway-telemetry", "embedded-backend", "console", "loadtest"] }
  name     = stage
  target   = stage
  tags     = tags(stage)
  output   = output(stage)
}
