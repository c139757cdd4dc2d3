"""What .github/workflows/release.yml runs between the images' build and the release's page. Needs Python alone."""
