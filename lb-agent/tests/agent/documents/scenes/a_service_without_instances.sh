mkdir -p a /etc/lb
python3 -m http.server 8001 --bind 127.0.0.1 --directory a &
printf '[[service]]\nname = "db"\n[[service]]\nname = "www_hello"\ninstance = [{ id = "a", address = "127.0.0.1", port = 8001 }]\n' > /etc/lb/services.toml
lb-agent run --services /etc/lb/services.toml --docker off
