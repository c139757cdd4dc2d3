from tests.fixtures.gateway import gateway, nginx_program, shared_gateway, start_gateway

__all__ = ["gateway", "nginx_program", "shared_gateway", "start_gateway"]
